"""Every panel of the Grafana dashboards shows something while a fleet is streamed."""

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import grpc
import pytest

from mien.bundle import Bundle
from mien.cli.child import Child
from mien.declaration import ContextOfUse
from mien.messages.labels import FaceLabel
from mien.messages.upward import Hello, upward_to_proto
from mien.messages.watched import WatchedChunk
from mien.v1 import recognition_pb2 as pb
from mien.v1.recognition_pb2_grpc import RecognitionServiceStub
from tests.support.dashboards import Query, queries
from tests.support.mjpeg_camera import MjpegCamera
from tests.support.prometheus import PROMETHEUS, Prometheus, watching
from tests.support.services import PATIENCE_S, serving
from tests.support.video import frames_of

# Windows of some seconds, where an operator has an hour.
CLOUD = ("--accuracy_window_s=6", "--drift_min_faces=20", "--label_window_s=60")


@pytest.mark.skipif(PROMETHEUS is None, reason="no prometheus: it is Debian's package prometheus")
def test_every_panels_query_gives_data_while_a_fleet_is_streamed(
    bundle: Bundle, clip: Path, tmp_path: Path
) -> None:
    frames = frames_of(clip)
    camera = MjpegCamera(lambda index: frames[index % len(frames)], frame_s=0.1)
    more = (*CLOUD, "--audit_log", str(tmp_path / "audit"), "--probe_interval_s=1")
    with (
        camera.on() as url,
        serving(bundle.folder, tmp_path / "cloud.log", 0, *more) as cloud,
        fleet(url, cloud.address, bundle, tmp_path) as fleet_port,
        users(cloud.address),
    ):
        targets = {
            "mien-cloud": f"127.0.0.1:{cloud.metrics_port}",
            "mien-edge": f"127.0.0.1:{fleet_port}",
        }
        with watching(targets, tmp_path) as prometheus:
            assert without_data(prometheus) == []
            assert not _has_data(prometheus, Query("", "", "mien_cloud_nothing_like_it"))
            assert not _has_data(prometheus, Query("", "", "mien_cloud_streams / 0 * 0"))


@contextmanager
def fleet(url: str, address: str, bundle: Bundle, folder: Path) -> Iterator[int]:
    """One camera under `mien-edge fleet`, with a spool; yields the port of its metrics."""
    camera = {"source": url, "server": address, "bundle": str(bundle.folder)}
    camera |= {"spool": str(folder / "spool"), "context": "demonstration", "chunk_seconds": 0.2}
    cameras = folder / "cameras.yaml"
    cameras.write_text(json.dumps({"cameras": {"gate": camera}}), encoding="utf-8")
    arguments = ["fleet", "--cameras", str(cameras), "--metrics_port", "0"]
    with Child("mien-edge", "edge_encoder.cli", arguments, folder / "edge.log") as process:
        event = process.next_event(PATIENCE_S)
        assert event is not None, process.last_words()
        yield int(event["metrics_port"])


@contextmanager
def users(address: str) -> Iterator[None]:
    """Somebody watches and labels what they see, and two others do what is not allowed."""
    over = Event()
    with grpc.insecure_channel(address) as channel:
        stub = RecognitionServiceStub(channel)
        watch = stub.WatchRecognitions(pb.WatchRecognitionsRequest())
        threads = [
            Thread(target=_label, args=(stub, watch)),
            Thread(target=_trouble, args=(stub, over)),
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            over.set()
            watch.cancel()
            for thread in threads:
                thread.join()


def _label(stub: RecognitionServiceStub, watch: Iterator[pb.WatchRecognitionsResponse]) -> None:
    try:
        for response in watch:
            seen = WatchedChunk.from_proto(response)
            labels = [
                FaceLabel(seen.device_id, seen.epoch, seen.seq, face.index, face.expression)
                for face in seen.recognitions
            ]
            stub.ReportLabels(pb.ReportLabelsRequest(labels=[one.to_proto() for one in labels]))
    except grpc.RpcError:
        return  # it was cancelled, or the service has ended


def _trouble(stub: RecognitionServiceStub, over: Event) -> None:
    hello = Hello("office", 1, 0, (), context=ContextOfUse.WORKPLACE)
    try:
        while not over.wait(0.5):
            stub.Recognize(pb.RecognizeRequest(payloads=[b"no chunk at all"]))
            try:
                list(stub.StreamFaces(iter([upward_to_proto(hello)])))
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.PERMISSION_DENIED:
                    raise
    except grpc.RpcError:
        return  # the service has ended


def without_data(prometheus: Prometheus) -> list[str]:
    """The queries that have had no finite value by the end of the patience."""
    missing = queries()
    until_s = time.monotonic() + PATIENCE_S
    while missing and time.monotonic() < until_s:
        time.sleep(1)
        missing = [query for query in missing if not _has_data(prometheus, query)]
    return [str(query) for query in missing]


def _has_data(prometheus: Prometheus, query: Query) -> bool:
    return any(math.isfinite(float(sample["value"][1])) for sample in prometheus.query(query.expr))
