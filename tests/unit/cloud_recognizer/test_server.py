"""Starting, being looked at, and stopping."""

import asyncio
import shutil
import socket
import threading
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from cloud_recognizer.config import CloudConfig
from cloud_recognizer.grpc_server import OPTIONS
from cloud_recognizer.metrics import REASONS, Metrics
from cloud_recognizer.model import ExpressionModel, RuntimeOptions
from cloud_recognizer.server import serving
from mien.bitstream import Limits
from mien.bundle import Bundle
from mien.errors import BundleHashError, ConfigError, ProbeError, UnknownBundleError
from mien.messages.downward import Drain
from mien.probe import Probe, load_probe
from mien.v1 import recognition_pb2 as pb
from mien.v1.recognition_pb2_grpc import RecognitionServiceStub
from tests.support.recognizer import (
    Device,
    eventually,
    health,
    hello,
    payload,
    running_recognizer,
)
from tests.support.relay import relay
from tests.support.reseal import reseal

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def config(bundles: Path, **settings: object) -> CloudConfig:
    defaults: dict[str, object] = {"port": 0, "metrics_port": None, "drain_grace_s": 30.0}
    return CloudConfig(bundles, **(defaults | settings))  # type: ignore[arg-type]


async def test_nothing_is_served_before_the_model_is_warm(bundles: Path) -> None:
    loading, may_go_on = threading.Event(), threading.Event()

    def load(one: Bundle, options: RuntimeOptions, limits: Limits) -> ExpressionModel:
        loading.set()
        assert may_go_on.wait(30)
        return ExpressionModel(one, options, limits)

    port, stop = free_port(), asyncio.Event()

    async def serve() -> None:
        async with serving(config(bundles, port=port), Metrics(), load):
            await stop.wait()

    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        server = asyncio.create_task(serve())
        await asyncio.to_thread(loading.wait, 30)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health(channel)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        may_go_on.set()
        assert await health(channel, wait_for_ready=True) == SERVING
        for name in ("mien.v1.RecognitionService", "mien.v1.BundleService"):
            assert await health(channel, name) == SERVING
        stop.set()
        await server


async def test_stopping_drains_answers_what_was_received_and_ends_watches(
    bundles: Path, bundle: Bundle
) -> None:
    stop = asyncio.Event()
    ports: asyncio.Queue[int] = asyncio.Queue()
    metrics = Metrics()

    async def serve() -> None:
        slow = config(bundles, max_batch_wait_s=0.3)
        async with serving(slow, metrics) as server:
            ports.put_nowait(server.port)
            await stop.wait()

    server = asyncio.create_task(serve())
    async with grpc.aio.insecure_channel(f"127.0.0.1:{await ports.get()}") as channel:
        stub = RecognitionServiceStub(channel)
        device = Device(stub)
        await device.open(hello(bundle))
        watching = stub.WatchRecognitions(pb.WatchRecognitionsRequest())
        await watching.initial_metadata()
        for seq in (1, 2, 3):
            await device.send(seq, payload(bundle, faces=1))
        await eventually(
            lambda: metrics.registry.get_sample_value("mien_cloud_queue_chunks") == 3.0
        )
        stop.set()
        assert await device.read() == Drain(grace_ms=30_000)
        assert await health(channel) == NOT_SERVING
        late = Device(stub)
        await late.call.write(pb.StreamFacesRequest(hello=hello(bundle, "late").to_proto()))
        assert (await late.status())[0] is grpc.StatusCode.UNAVAILABLE

        answers = await device.close()
        assert [result.seq for result in answers.results] == [1, 2, 3]
        assert await device.call.code() is grpc.StatusCode.OK
        for _ in range(3):
            assert isinstance(await watching.read(), pb.WatchRecognitionsResponse)
        assert await watching.code() is grpc.StatusCode.UNAVAILABLE
        await server


async def test_a_device_that_stays_is_cut_off_after_the_grace(
    bundles: Path, bundle: Bundle
) -> None:
    async with running_recognizer(bundles, drain_grace_s=0.05) as running:
        device = Device(running.stub)
        await device.open(hello(bundle))
    # Leaving did not hang, though the device never closed its side.


def quicker(*names: str) -> tuple[tuple[str, int], ...]:
    """The server's own options, these of them at 200 ms."""
    options = dict(OPTIONS)
    assert options.keys() >= set(names)
    return tuple((options | dict.fromkeys(names, 200)).items())


async def test_a_device_that_takes_bytes_and_answers_none_gives_up_its_stream(
    bundles: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("keepalive_time_ms", "keepalive_timeout_ms", "http2.ping_timeout_ms")
    options = quicker(*(f"grpc.{name}" for name in names))
    monkeypatch.setattr("cloud_recognizer.grpc_server.OPTIONS", options)
    frozen = asyncio.Event()
    async with (
        running_recognizer(bundles) as running,
        relay(f"127.0.0.1:{running.serving.port}", frozen) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        await Device(RecognitionServiceStub(channel)).open(hello(bundle))
        assert running.sample("streams") == 1
        frozen.set()
        await eventually(lambda: running.sample("streams") == 0)


async def test_an_idle_device_may_ask_for_a_sign_of_life_as_often_as_is_said(
    bundles: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Under a name that gRPC does not know, its default of five minutes would hold. gRPC asks once a
    # second at most, and with one strike allowed the stream would then end after four.
    strict = (("grpc.http2.max_ping_strikes", 1),)
    options = quicker("grpc.http2.min_ping_interval_without_data_ms") + strict
    monkeypatch.setattr("cloud_recognizer.grpc_server.OPTIONS", options)
    pinging = (
        ("grpc.keepalive_time_ms", 1000),
        ("grpc.http2.max_pings_without_data", 0),
    )
    async with (
        running_recognizer(bundles) as running,
        grpc.aio.insecure_channel(f"127.0.0.1:{running.serving.port}", pinging) as channel,
    ):
        device = Device(RecognitionServiceStub(channel))
        await device.open(hello(bundle))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(6):
                await device.read()


async def test_reflection_lists_and_describes_the_services(bundles: Path) -> None:
    async with running_recognizer(bundles) as running:
        # The client of the reflection library is synchronous.
        with grpc.insecure_channel(f"127.0.0.1:{running.serving.port}") as channel:
            database = ProtoReflectionDescriptorDatabase(channel)
            services = await asyncio.to_thread(lambda: list(database.get_services()))
            described = await asyncio.to_thread(
                database.FindFileContainingSymbol, "mien.v1.RecognitionService"
            )
    assert {"mien.v1.RecognitionService", "mien.v1.BundleService"} <= set(services)
    assert "grpc.health.v1.Health" in services
    assert described.name == "mien/v1/recognition.proto"


async def test_metrics_listen_on_loopback_wherever_devices_are_served(bundles: Path) -> None:
    def answers(host: str, port: int | None) -> bool:
        try:
            return bool(urllib.request.urlopen(f"http://{host}:{port}/metrics").read())
        except urllib.error.URLError:
            return False

    async with running_recognizer(bundles, host="127.0.0.2", metrics_port=0) as running:
        port = running.serving.metrics_port
        assert await asyncio.to_thread(answers, "127.0.0.1", port)
        assert not await asyncio.to_thread(answers, "127.0.0.2", port)
    more = {"metrics_host": "127.0.0.3", "metrics_port": 0}
    async with running_recognizer(bundles, **more) as running:
        port = running.serving.metrics_port
        assert await asyncio.to_thread(answers, "127.0.0.3", port)
        assert not await asyncio.to_thread(answers, "127.0.0.1", port)


async def test_metrics_tell_what_happened_and_name_no_device(bundles: Path, bundle: Bundle) -> None:
    chunk = payload(bundle, faces=4, track_id=987654)
    async with running_recognizer(bundles, metrics_port=0) as running:
        device = Device(running.stub)
        await device.open(hello(bundle, "front-door-camera"))
        await device.send(1, chunk)
        await device.send(2, chunk[:-1])
        await device.close()
        url = f"http://127.0.0.1:{running.serving.metrics_port}/metrics"
        page = await asyncio.to_thread(lambda: urllib.request.urlopen(url).read().decode())
    samples = {
        name: float(value)
        for name, value in (line.rsplit(" ", 1) for line in page.splitlines() if line[0] != "#")
    }
    assert samples["mien_cloud_payload_bytes_total"] == 2 * len(chunk) - 1
    assert samples['mien_cloud_faces_total{rpc="StreamFaces"}'] == 4
    assert samples['mien_cloud_chunks_total{status="result"}'] == 1
    assert samples['mien_cloud_chunks_total{status="rejected"}'] == 1
    assert samples['mien_cloud_rejected_chunks_total{code="checksum_mismatch"}'] == 1
    assert samples["mien_cloud_face_bits_sum"] == 8 * len(chunk) / 4
    assert samples["mien_cloud_chunk_seconds_count"] == 2
    assert samples["mien_cloud_queue_chunks"] == 0
    recognised = [
        samples.get(f'mien_cloud_recognitions_total{{expression="{expression}"}}', 0)
        for expression in bundle.manifest.expressions
    ]
    assert sum(recognised) == 4
    for reason in REASONS:
        assert f'mien_cloud_dropped_total{{reason="{reason}"}}' in samples
    info = f'bundle_id="{bundle.bundle_id}",provider="CPUExecutionProvider"'
    assert samples[f"mien_cloud_model_info{{{info}}}"] == 1
    assert "front-door" not in page
    assert "987654" not in page


async def test_a_port_that_is_taken_is_named(bundles: Path) -> None:
    async with running_recognizer(bundles) as running:
        taken = running.serving.port
        with pytest.raises(ConfigError, match=f"port {taken} of 127.0.0.1"):
            async with serving(config(bundles, port=taken), Metrics()):
                pass


async def test_a_metrics_port_that_is_taken_is_named(bundles: Path) -> None:
    async with running_recognizer(bundles, metrics_port=0) as running:
        taken = running.serving.metrics_port
        with pytest.raises(ConfigError, match=f"metrics_port {taken}"):
            async with serving(config(bundles, metrics_port=taken), Metrics()):
                pass


async def refuse(bundles: Path, expected: type[Exception], match: str) -> None:
    with pytest.raises(expected, match=match):
        async with serving(config(bundles), Metrics()):
            pass


async def test_a_bundle_that_classifies_otherwise_than_its_probe_is_refused(
    tmp_path: Path, bundle: Bundle
) -> None:
    probe = load_probe(bundle)
    turned = np.roll(probe.probabilities, 1, axis=1)
    other = Probe(probe.faces, probe.symbols, turned, probe.payloads)
    reseal(tmp_path / "b", bundle, probe_npz=saved(other, tmp_path))
    await refuse(tmp_path, ProbeError, "differs by")


async def test_a_bundle_whose_golden_payloads_decode_otherwise_is_refused(
    tmp_path: Path, bundle: Bundle
) -> None:
    probe = load_probe(bundle)
    symbols = probe.symbols[::-1].copy()
    other = Probe(probe.faces, symbols, probe.probabilities, probe.payloads)
    reseal(tmp_path / "b", bundle, probe_npz=saved(other, tmp_path))
    await refuse(tmp_path, ProbeError, "golden payloads")


def saved(probe: Probe, folder: Path) -> bytes:
    path = folder / "probe.npz"
    probe.save(path)
    return path.read_bytes()


async def test_a_bundle_with_a_changed_file_is_refused(tmp_path: Path, bundle: Bundle) -> None:
    shutil.copytree(bundle.folder, tmp_path / "b")
    model = tmp_path / "b" / "classifier.onnx"
    model.write_bytes(model.read_bytes() + b"\0")
    await refuse(tmp_path, BundleHashError, r"classifier\.onnx")


async def test_a_model_that_onnx_runtime_cannot_load_is_refused(
    tmp_path: Path, bundle: Bundle
) -> None:
    reseal(tmp_path / "b", bundle, classifier_onnx=b"not a model")
    await refuse(tmp_path, ProbeError, r"classifier\.onnx cannot be run")


async def test_a_classifier_of_other_symbols_is_refused(tmp_path: Path, bundle: Bundle) -> None:
    other = bundle.path("analysis.onnx").read_bytes()
    reseal(tmp_path / "b", bundle, classifier_onnx=other)
    await refuse(tmp_path, ProbeError, "does not run")


async def test_a_folder_without_a_bundle_is_refused(tmp_path: Path) -> None:
    await refuse(tmp_path, UnknownBundleError, "no bundle")


async def test_cuda_that_was_asked_for_and_is_not_there_is_refused(bundles: Path) -> None:
    with pytest.raises(ConfigError, match="provider is cuda"):
        async with serving(config(bundles, provider="cuda"), Metrics()):
            pass
