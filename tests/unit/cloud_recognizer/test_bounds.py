"""What calls may hold that do not come to the point: no Hello, half a request, nothing read."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cloud_recognizer import bounds
from cloud_recognizer.bounds import MAX_REFLECTIONS, MAX_SLOW
from cloud_recognizer.health import MAX_OWN_WATCHES, MAX_WATCHES, Health
from cloud_recognizer.metrics import Metrics
from edge_encoder.refusal import Refusal
from mien.bundle import Bundle
from mien.identity import Role
from mien.v1 import recognition_pb2 as pb
from mien.v1.recognition_pb2_grpc import RecognitionServiceStub
from tests.support.certificates import Authority, channel, recognizer
from tests.support.raw_http2 import MAX_CONCURRENT_STREAMS, raw_connection
from tests.support.recognizer import (
    RPC_TIMEOUT_S,
    Device,
    Running,
    eventually,
    health,
    hello,
    payload,
    running_recognizer,
)

RECOGNIZE = "/mien.v1.RecognitionService/Recognize"
STREAM_FACES = "/mien.v1.RecognitionService/StreamFaces"
WATCH = "/grpc.health.v1.Health/Watch"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
CODE = grpc.StatusCode
IMPATIENT_S = 0.3


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.made(tmp_path / "certificates")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request counts as slow soon; one that is all there comes sooner on a busy machine."""
    monkeypatch.setattr(bounds, "PROMPT_S", IMPATIENT_S)


def begun(to: grpc.aio.Channel, path: str) -> Any:
    """A call that sends its headers and nothing else, of whatever kind the method is."""
    return to.stream_stream(path)(timeout=RPC_TIMEOUT_S)


@contextlib.asynccontextmanager
async def begun_calls(to: grpc.aio.Channel, path: str, count: int) -> AsyncIterator[Sequence[Any]]:
    calls = [begun(to, path) for _ in range(count)]
    try:
        yield calls
    finally:
        for call in calls:
            call.cancel()


async def refusal(call: Any) -> tuple[grpc.StatusCode, Refusal]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    return caught.value.code(), Refusal.of(caught.value)


NO_ROOM = (CODE.RESOURCE_EXHAUSTED, Refusal("overloaded", 1.0))
SHARE_TAKEN = (CODE.RESOURCE_EXHAUSTED, Refusal("share_taken", 1.0))


async def first_refusal(calls: Sequence[Any]) -> tuple[grpc.StatusCode, Refusal]:
    """How the first of these calls that ends was refused."""
    reading = [asyncio.ensure_future(refusal(call)) for call in calls]
    done, others = await asyncio.wait(reading, return_when=asyncio.FIRST_COMPLETED)
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    return done.pop().result()


async def test_streams_that_wait_for_a_hello_are_bounded(bundles: Path, bundle: Bundle) -> None:
    async with (
        running_recognizer(bundles, max_streams=2) as running,
        begun_calls(running.channel, STREAM_FACES, 5) as calls,
    ):
        assert await first_refusal(calls) == NO_ROOM
        assert running.sample("turned_away_total", bound="calls") == 1
        for call in calls:
            call.cancel()
        device = Device(running.stub)
        await eventually_opens(device, running, bundle)


async def eventually_opens(device: Device, running: Running, bundle: Bundle) -> None:
    """The cancelled calls leave a moment later: a device that comes in it comes again."""
    with contextlib.suppress(grpc.aio.AioRpcError):
        await device.open(hello(bundle))
        return
    await asyncio.sleep(0.05)
    await eventually_opens(Device(running.stub), running, bundle)


async def test_one_devices_streams_without_a_hello_take_no_other_devices_place(
    bundles: Path, bundle: Bundle, authority: Authority
) -> None:
    async with (
        recognizer(bundles, authority, max_device_streams=2) as running,
        channel(running.serving.port, authority.client(Role.DEVICE, "many")) as many,
        channel(running.serving.port, authority.client(Role.DEVICE, "door")) as door,
        begun_calls(many, STREAM_FACES, 5) as calls,
    ):
        assert await first_refusal(calls) == SHARE_TAKEN
        assert running.sample("turned_away_total", bound="share") == 1
        device = Device(RecognitionServiceStub(door))
        await device.open(hello(bundle, "door"))
        await device.send(1, payload(bundle))
        assert len((await device.close()).results) == 1


async def test_a_request_that_does_not_come_ends_its_call(bundles: Path) -> None:
    async with running_recognizer(bundles, hello_timeout_s=0.05) as running:
        assert (await refusal(begun(running.channel, RECOGNIZE)))[0] is CODE.INVALID_ARGUMENT
        empty = begun(running.channel, RECOGNIZE)
        await empty.done_writing()
        assert (await refusal(empty))[0] is CODE.INVALID_ARGUMENT
        garbage = begun(running.channel, RECOGNIZE)
        await garbage.write(b"\xff\xff")
        assert (await refusal(garbage))[0] is CODE.INVALID_ARGUMENT
        assert running.sample("rpc_errors_total", code="protocol") == 3
        assert running.sample("rpc_errors_total", code="internal") == 0


@pytest.mark.usefixtures("impatient")
async def test_half_sent_requests_are_few_and_keep_nobody_waiting(
    bundles: Path, bundle: Bundle
) -> None:
    async with (
        running_recognizer(bundles) as running,
        raw_connection(running.serving.port) as raw,
    ):
        for _ in range(MAX_SLOW + 3):
            await raw.message(await raw.call(RECOGNIZE), bytes(1000), declared=8_000_000)
        await eventually(lambda: running.sample("turned_away_total", bound="slow_requests") == 3)
        # Calls that are all there need no such place.
        request = pb.RecognizeRequest(payloads=[payload(bundle)])
        for _ in range(3):
            assert len((await running.stub.Recognize(request)).results) == 1
            assert await health(running.channel) == SERVING


@pytest.mark.usefixtures("impatient")
async def test_one_callers_slow_requests_take_no_other_callers_places(
    bundles: Path, authority: Authority
) -> None:
    async with (
        recognizer(bundles, authority) as running,
        channel(running.serving.port, authority.client(Role.CONSUMER, "slow")) as slow,
        channel(running.serving.port, authority.client(Role.CONSUMER, "shop")) as shop,
        begun_calls(slow, RECOGNIZE, MAX_SLOW),
    ):
        await eventually(lambda: running.sample("turned_away_total", bound="share") == 12)
        late = begun(shop, RECOGNIZE)
        await late.wait_for_connection()
        await asyncio.sleep(2 * IMPATIENT_S)  # so that it needs a slow one's place
        await late.write(pb.RecognizeRequest().SerializeToString())
        assert await late.read() == b""


async def test_who_may_not_call_is_told_so_before_the_request_is_read(
    bundles: Path, authority: Authority
) -> None:
    async with (
        recognizer(bundles, authority) as running,
        channel(running.serving.port, authority.client(Role.DEVICE, "door")) as door,
    ):
        assert (await refusal(begun(door, RECOGNIZE)))[0] is CODE.PERMISSION_DENIED


async def test_health_watches_and_reflections_are_bounded(bundles: Path) -> None:
    async with running_recognizer(bundles) as running:
        request = health_pb2.HealthCheckRequest()
        watches = [watch(running.channel, request) for _ in range(MAX_WATCHES)]
        for each in watches:
            assert (await each.read()).status == SERVING
        assert await refusal(watch(running.channel, request)) == NO_ROOM
        assert running.sample("turned_away_total", bound="health_watches") == 1
        async with begun_calls(running.channel, REFLECTION, MAX_REFLECTIONS + 1) as calls:
            assert await first_refusal(calls) == NO_ROOM
        assert running.sample("turned_away_total", bound="reflections") == 1
        for each in watches:
            each.cancel()


def watch(to: grpc.aio.Channel, request: health_pb2.HealthCheckRequest) -> Any:
    return health_pb2_grpc.HealthStub(to).Watch(request, timeout=RPC_TIMEOUT_S)  # type: ignore[no-untyped-call]  # has no types


async def test_one_caller_has_its_share_of_health_watches(
    bundles: Path, authority: Authority
) -> None:
    async with (
        recognizer(bundles, authority) as running,
        channel(running.serving.port, authority.client(Role.DEVICE, "many")) as many,
        channel(running.serving.port, authority.odd_client()) as nobody,
    ):
        request = health_pb2.HealthCheckRequest()
        for _ in range(2):  # the second time by a connection that says no name
            watches = [watch(many, request) for _ in range(MAX_OWN_WATCHES)]
            for each in watches:
                assert (await each.read()).status == SERVING
            assert await refusal(watch(many, request)) == SHARE_TAKEN
            many = nobody


async def test_a_health_watcher_that_reads_nothing_keeps_no_news_from_others(
    metrics: Metrics,
) -> None:
    checks = Health(metrics, None, write_timeout_s=60.0)
    checks.say("", SERVING)
    async with health_server(checks) as (port, connected):
        async with raw_connection(port, initial_window=0) as raw:
            await raw.message(await raw.call(WATCH), b"")
            await eventually(lambda: checks.watches.taken == 1)
            other = watch(connected, health_pb2.HealthCheckRequest())
            assert (await other.read()).status == SERVING
            checks.say("", NOT_SERVING)
            assert (await other.read()).status == NOT_SERVING
            checks.say("", SERVING)
            checks.stop()
            checks.say("", SERVING)
            assert await health(connected) == NOT_SERVING
        # Its connection is gone.
        await eventually(lambda: checks.watches.taken == 1)


async def test_a_health_watcher_that_reads_nothing_is_cut_off(metrics: Metrics) -> None:
    checks = Health(metrics, None, write_timeout_s=0.05)
    async with health_server(checks) as (port, _), raw_connection(port, initial_window=0) as raw:
        await raw.message(await raw.call(WATCH), b"")
        await eventually(lambda: cut_off(metrics) == 1)
        assert checks.watches.taken == 0


def cut_off(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("mien_cloud_rpc_errors_total", {"code": "unavailable"})


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@contextlib.asynccontextmanager
async def health_server(checks: Health) -> AsyncIterator[tuple[int, grpc.aio.Channel]]:
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)  # type: ignore[no-untyped-call]  # has no types
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as connected:
            yield port, connected
    finally:
        await server.stop(None)


async def test_a_health_watch_tells_every_change_and_knows_no_unknown_service(
    bundles: Path,
) -> None:
    async with running_recognizer(bundles) as running:
        unknown = watch(running.channel, health_pb2.HealthCheckRequest(service="nobody"))
        assert (await unknown.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health(running.channel, "nobody")
        assert caught.value.code() is CODE.NOT_FOUND


async def test_a_connection_may_have_a_stream_for_every_place(bundles: Path) -> None:
    async with (
        running_recognizer(bundles, max_streams=700, queue_chunks=8192) as running,
        raw_connection(running.serving.port) as raw,
    ):
        assert raw.settings[MAX_CONCURRENT_STREAMS] == 2 * 700 + 64 + bounds.MAX_UNREAD
