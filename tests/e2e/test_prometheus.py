"""A real Prometheus scrapes a recognizer and a device with a camera: every figure is there."""

import time
from pathlib import Path

import pytest

from mien.bundle import Bundle
from tests.support.mjpeg_camera import MjpegCamera
from tests.support.prometheus import PATIENCE_S, PROMETHEUS, Prometheus, watching
from tests.support.rules import RECORDINGS
from tests.support.services import edge, serving
from tests.support.video import frames_of

# The clip's faces cost 2.5 bytes each in long chunks; a slow camera's chunks have few, and more
# beside them. In bytes the mean would be below ten.
FACE_BITS = (12, 300)
# What the first seconds may look like, before the camera has a history and results come.
MAY_WARM_UP = {"MienCameraUnhealthy", "MienEdgeUnanswered"}


@pytest.mark.skipif(PROMETHEUS is None, reason="no prometheus: it is Debian's package prometheus")
def test_every_recording_rule_gives_data_while_a_camera_is_streamed(
    bundle: Bundle, clip: Path, tmp_path: Path
) -> None:
    frames = frames_of(clip)
    camera = MjpegCamera(lambda index: frames[index % len(frames)], frame_s=0.1)
    more = ["--metrics_port", "0", "--spool", str(tmp_path / "spool")]
    with (
        camera.on() as url,
        serving(bundle.folder, tmp_path / "cloud.log") as cloud,
        edge(url, cloud.address, bundle.folder, tmp_path / "edge.log", *more) as device,
    ):
        event = device.next_event(PATIENCE_S)
        assert event is not None, device.last_words()
        targets = {
            "mien-cloud": f"127.0.0.1:{cloud.metrics_port}",
            "mien-edge": f"127.0.0.1:{event['metrics_port']}",
        }
        with watching(targets, tmp_path) as prometheus:
            assert wait_for_data(prometheus) == set()
            (face_bits,) = prometheus.query("instance:mien_edge_face_bits:mean5m")
            connected = prometheus.query("mien_edge_connected == 1")
            healthy = prometheus.query("mien_edge_camera_health > 0")
            # Firing takes a minute at least; what is well is not even on the way to it.
            pending = {a["metric"]["alertname"] for a in prometheus.query("ALERTS")}
    assert FACE_BITS[0] < float(face_bits["value"][1]) < FACE_BITS[1]
    assert len(connected) == len(healthy) == 1
    assert not pending - MAY_WARM_UP


def wait_for_data(prometheus: Prometheus) -> set[str]:
    """Those of the recorded figures that have had no finite value by the end of the patience."""
    # What looks back by hours has its promtool cases.
    missing = {rule.name for rule in RECORDINGS if " offset " not in rule.expr}
    until_s = time.monotonic() + PATIENCE_S
    while missing and time.monotonic() < until_s:
        time.sleep(1)
        missing -= {
            sample["metric"]["__name__"]
            for sample in prometheus.query('{__name__=~"instance.*:.*"}')
            if sample["value"][1] not in ("NaN", "+Inf")
        }
    return missing
