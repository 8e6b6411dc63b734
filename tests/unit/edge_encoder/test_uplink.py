"""The uplink against real servers: credits, results, and every way a stream can break."""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack

import grpc
import pytest

from edge_encoder.chunker import Chunk, FrameTime
from edge_encoder.metrics import RECONNECTS, UNANSWERED, UPLINK_FULL, Metrics
from edge_encoder.reconnect_policy import LONGEST_WAIT_S
from edge_encoder.servers import Servers
from edge_encoder.uplink import Uplink, UplinkSettings
from mien.bundle import Bundle
from mien.errors import ProtocolError, UnavailableError, UnknownBundleError
from mien.messages.downward import Acknowledgement, Credits, Drain, Welcome
from mien.messages.results import ChunkResult
from mien.messages.upward import EncodedChunk
from tests.support.recognizer import eventually, hello, payload, running_recognizer
from tests.support.scripted_server import DeviceStream, scripted_server
from tests.support.uplinks import FACES, chunk, device, result, serving, welcome


async def test_every_chunk_is_recognised_and_the_stream_is_closed(bundle: Bundle) -> None:
    async with running_recognizer(bundle.folder, credits=2) as server:
        address = f"127.0.0.1:{server.serving.port}"
        async with device(address, bundle) as edge:
            welcome = await edge.uplink.ready()
            assert welcome is not None
            assert welcome.bundle_id == bundle.bundle_id
            for seed in range(20):
                await edge.uplink.put(chunk(bundle, seed))
            await edge.uplink.finish()
            assert edge.recognised == Counter(chunk(bundle, seed).payload for seed in range(20))
            faces = [face for _, answer in edge.answers for face in answer.recognitions]
            assert len(faces) == 20 * FACES
            assert server.sample("dropped_total", reason="duplicate") == 0
        await eventually(lambda: server.sample("streams") == 0)


async def test_the_bytes_on_the_wire_are_more_than_the_payloads(bundle: Bundle) -> None:
    chunks = [chunk(bundle, seed) for seed in range(10)]
    async with (
        running_recognizer(bundle.folder) as server,
        device(f"127.0.0.1:{server.serving.port}", bundle) as edge,
    ):
        for item in chunks:
            await edge.uplink.put(item)
        await edge.uplink.finish()
        sent = edge.uplink.wire_bytes
    if sent is None:
        pytest.skip("no TCP_INFO here")
    payloads = sum(len(item.payload) for item in chunks)
    assert payloads < sent < payloads + 2000


async def test_no_more_chunks_are_sent_than_credits_were_granted(bundle: Bundle) -> None:
    first_is_answered = asyncio.Event()

    async def script(stream: DeviceStream) -> None:
        await stream.read()
        await stream.write(welcome(bundle, credits=2))
        await stream.read()
        await stream.read()
        third = asyncio.ensure_future(stream.read())
        await stream.write(result(1))
        await first_is_answered.wait()
        # A device that counts wrongly would have sent the third chunk with the first two.
        assert not third.done()
        await stream.write(Credits(1))
        assert isinstance(await third, EncodedChunk)
        await stream.write(result(2), result(3), Acknowledgement(3))
        while await stream.read() is not None:
            pass

    async with scripted_server(script) as (address, streams), device(address, bundle) as edge:
        for seed in range(3):
            await edge.uplink.put(chunk(bundle, seed))
        await eventually(lambda: len(edge.answers) == 1)
        assert edge.sample("queue_chunks") == 1
        assert edge.sample("in_flight_chunks") == 1
        assert edge.sample("lag_seconds") > 0
        first_is_answered.set()
        await edge.uplink.finish()
        assert edge.sample("lag_seconds") == 0
        assert [item.seq for item in streams[0].chunks] == [1, 2, 3]


async def test_a_rejected_chunk_is_counted_and_the_stream_goes_on(bundle: Bundle) -> None:
    damaged = bytearray(payload(bundle, FACES))
    damaged[-1] ^= 1
    async with (
        running_recognizer(bundle.folder) as server,
        device(f"127.0.0.1:{server.serving.port}", bundle) as edge,
    ):
        await edge.uplink.put(chunk(bundle, 1))
        await edge.uplink.put(Chunk(bytes(damaged), (FrameTime(0, 0.0),) * FACES))
        await edge.uplink.put(chunk(bundle, 2))
        await edge.uplink.finish()
        statuses = [answer.status.name for _, answer in edge.answers]
        assert statuses == ["RESULT", "REJECTED", "RESULT"]
        assert edge.metrics.rejections == {"checksum_mismatch": FACES}
        assert all(edge.reconnects(reason) == 0 for reason in RECONNECTS)


async def test_after_a_restart_what_was_not_acknowledged_is_sent_again(bundle: Bundle) -> None:
    async def dies_after_three(stream: DeviceStream) -> None:
        await stream.read()
        await stream.write(welcome(bundle))
        while len(stream.chunks) < 3:
            await stream.read()
        await stream.write(result(1), Acknowledgement(1))
        await stream.context.abort(grpc.StatusCode.INTERNAL, "the process was killed")

    scripts = (dies_after_three, serving(bundle))
    async with scripted_server(*scripts) as (address, streams), device(address, bundle) as edge:
        for seed in range(5):
            await edge.uplink.put(chunk(bundle, seed))
        await edge.uplink.finish()
        assert [item.seq for item in streams[0].chunks][:3] == [1, 2, 3]
        assert [item.seq for item in streams[1].chunks] == [2, 3, 4, 5]
        assert edge.recognised == Counter(chunk(bundle, seed).payload for seed in range(5))
        assert streams[0].hello == streams[1].hello


async def test_a_server_that_is_killed_and_started_again_gets_everything(bundle: Bundle) -> None:
    async with AsyncExitStack() as first:
        server = await first.enter_async_context(running_recognizer(bundle.folder))
        port = server.serving.port
        async with device(f"127.0.0.1:{port}", bundle) as edge:
            await edge.uplink.put(chunk(bundle, 0))
            await eventually(lambda: len(edge.answers) == 1)
            await first.aclose()
            for seed in range(1, 6):
                await edge.uplink.put(chunk(bundle, seed))
            async with running_recognizer(bundle.folder, port=port):
                await edge.uplink.finish()
            assert edge.recognised == Counter(chunk(bundle, seed).payload for seed in range(6))


async def test_it_shows_whether_a_server_has_welcomed_it_and_is_still_there(bundle: Bundle) -> None:
    async with AsyncExitStack() as first:
        server = await first.enter_async_context(running_recognizer(bundle.folder))
        port = server.serving.port
        async with device(f"127.0.0.1:{port}", bundle) as edge:
            assert edge.sample("connected") == 0
            await edge.uplink.ready()
            assert edge.sample("connected") == 1
            await first.aclose()
            await eventually(lambda: edge.sample("connected") == 0)
            async with running_recognizer(bundle.folder, port=port):
                await eventually(lambda: edge.sample("connected") == 1)
                await edge.uplink.finish()
                assert edge.sample("connected") == 0


@pytest.mark.parametrize(
    "code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL, grpc.StatusCode.CANCELLED]
)
async def test_each_way_a_stream_breaks_means_resume(bundle: Bundle, code: grpc.StatusCode) -> None:
    async def breaks(stream: DeviceStream) -> None:
        await stream.read()
        await stream.write(welcome(bundle))
        await stream.read()
        await stream.context.abort(code, "broken")

    scripts = (breaks, serving(bundle))
    async with scripted_server(*scripts) as (address, _), device(address, bundle) as edge:
        await edge.uplink.put(chunk(bundle))
        await edge.uplink.finish()
        assert len(edge.recognised) == 1


async def test_a_server_that_closes_a_stream_in_order_is_connected_to_again(
    bundle: Bundle,
) -> None:
    async def closes(stream: DeviceStream) -> None:
        await stream.read()
        await stream.write(welcome(bundle))

    scripts = (closes, closes, serving(bundle))
    async with scripted_server(*scripts) as (address, streams), device(address, bundle) as edge:
        await edge.uplink.put(chunk(bundle))
        await edge.uplink.finish()
        assert len(streams) == 3
        assert len(edge.recognised) == 1


async def test_a_draining_server_gets_nothing_new_and_is_left(bundle: Bundle) -> None:
    device_has_left, more_is_queued = asyncio.Event(), asyncio.Event()

    async def drains(stream: DeviceStream) -> None:
        await stream.read()
        await stream.write(welcome(bundle))
        await stream.read()
        await stream.write(Drain(30_000))
        assert await stream.read() is None  # the device closes its side
        device_has_left.set()
        await more_is_queued.wait()
        await stream.write(result(1), Acknowledgement(1))

    scripts = (drains, serving(bundle))
    async with scripted_server(*scripts) as (address, streams), device(address, bundle) as edge:
        await edge.uplink.put(chunk(bundle, 0))
        await device_has_left.wait()
        await edge.uplink.put(chunk(bundle, 1))
        more_is_queued.set()
        await edge.uplink.finish()
        assert [item.seq for item in streams[0].chunks] == [1]
        assert [item.seq for item in streams[1].chunks] == [2]
        assert sum(edge.recognised.values()) == 2


async def test_a_recognizer_that_stops_loses_nothing(bundle: Bundle) -> None:
    async with AsyncExitStack() as first:
        server = await first.enter_async_context(
            running_recognizer(bundle.folder, drain_grace_s=30.0)
        )
        port = server.serving.port
        async with device(f"127.0.0.1:{port}", bundle) as edge:
            for seed in range(10):
                await edge.uplink.put(chunk(bundle, seed))
            await eventually(lambda: len(edge.answers) >= 1)
            await first.aclose()
            async with running_recognizer(bundle.folder, port=port):
                await edge.uplink.finish()
            assert edge.recognised == Counter(chunk(bundle, seed).payload for seed in range(10))
            assert not +edge.metrics.drops


async def test_results_lost_with_a_stream_are_counted_and_not_waited_for(bundle: Bundle) -> None:
    async def settles_silently(stream: DeviceStream) -> None:
        await stream.read()
        await stream.write(welcome(bundle))
        await stream.read()
        await stream.context.abort(grpc.StatusCode.UNAVAILABLE, "between result and its sending")

    async def knows(stream: DeviceStream) -> None:
        await stream.read()
        await stream.write(welcome(bundle, acknowledged_seq=1))
        while await stream.read() is not None:
            pass

    scripts = (settles_silently, knows)
    async with scripted_server(*scripts) as (address, streams), device(address, bundle) as edge:
        await edge.uplink.put(chunk(bundle))
        await edge.uplink.finish()
        assert edge.metrics.drops[UNANSWERED] == FACES
        assert not streams[1].chunks


async def test_who_cannot_wait_loses_the_oldest_chunk_and_it_is_counted(bundle: Bundle) -> None:
    async def grants_nothing_at_first(stream: DeviceStream) -> None:
        await stream.read()
        await stream.write(welcome(bundle, credits=0))
        await filled.wait()
        await stream.write(Credits(10))
        while isinstance(message := await stream.read(), EncodedChunk):
            await stream.write(result(message.seq), Acknowledgement(message.seq))

    filled = asyncio.Event()
    async with (
        scripted_server(grants_nothing_at_first) as (address, _),
        device(address, bundle, queue_chunks=4) as edge,
    ):
        await edge.uplink.ready()
        for seed in range(7):
            edge.uplink.offer(chunk(bundle, seed))
        assert edge.metrics.drops[UPLINK_FULL] == 3 * FACES
        filled.set()
        await edge.uplink.finish()
        assert edge.recognised == Counter(chunk(bundle, seed).payload for seed in (3, 4, 5, 6))


async def test_who_can_wait_waits_for_room_and_loses_nothing(bundle: Bundle) -> None:
    async with (
        scripted_server(serving(bundle, credits=1)) as (address, _),
        device(address, bundle, queue_chunks=1) as edge,
    ):
        for seed in range(12):
            await edge.uplink.put(chunk(bundle, seed))
            assert edge.sample("queue_chunks") in (0, 1)
        await edge.uplink.finish()
        assert len(edge.recognised) == 12
        assert not +edge.metrics.drops


async def test_a_server_that_falls_silent_while_it_owes_answers_is_left(bundle: Bundle) -> None:
    async def says_nothing(stream: DeviceStream) -> None:
        await stream.read()
        await stream.write(welcome(bundle))
        while await stream.read() is not None:
            pass

    scripts = (says_nothing, serving(bundle))
    async with (
        scripted_server(*scripts) as (address, streams),
        device(address, bundle, answer_timeout_s=0.1) as edge,
    ):
        await edge.uplink.put(chunk(bundle))
        await edge.uplink.finish()
        assert len(streams) == 2
        assert len(edge.recognised) == 1


async def test_a_server_that_never_welcomes_is_given_up(bundle: Bundle) -> None:
    async def says_nothing(stream: DeviceStream) -> None:
        while await stream.read() is not None:
            pass

    async with (
        scripted_server(says_nothing) as (address, _),
        device(address, bundle, welcome_timeout_s=0.05, give_up_s=0.1) as edge,
    ):
        with pytest.raises(UnavailableError, match=r"no Welcome within 0\.05 s"):
            await edge.uplink.ready()


async def test_without_a_server_every_call_raises_why(bundle: Bundle) -> None:
    async with scripted_server(serving(bundle)) as (address, _):
        pass
    async with device(address, bundle, give_up_s=0.05, queue_chunks=1) as edge:
        for call in (edge.uplink.ready(), edge.uplink.finish()):
            with pytest.raises(UnavailableError, match=rf"no recognizer at {address} for"):
                await call
        with pytest.raises(UnavailableError):
            await edge.uplink.put(chunk(bundle))


async def test_giving_up_counts_from_when_the_server_went(bundle: Bundle) -> None:
    now = 0.0
    break_it = asyncio.Event()

    async def breaks(stream: DeviceStream) -> None:
        await stream.read()
        await stream.write(welcome(bundle))
        await break_it.wait()
        await stream.context.abort(grpc.StatusCode.UNAVAILABLE, "broken")

    async with (
        scripted_server(breaks, serving(bundle)) as (address, _),
        device(address, bundle, clock=lambda: now, give_up_s=30.0) as edge,
    ):
        await edge.uplink.ready()
        now = 3600.0  # an hour of quiet is no reason to give up at the first break
        break_it.set()
        await edge.uplink.put(chunk(bundle))
        await edge.uplink.finish()


async def test_a_server_that_breaks_on_every_chunk_is_given_up(bundle: Bundle) -> None:
    async def breaks(stream: DeviceStream) -> None:
        await stream.read()
        await stream.write(welcome(bundle))
        await stream.read()
        await stream.context.abort(grpc.StatusCode.UNAVAILABLE, "a chunk too many")

    async with (
        scripted_server(breaks) as (address, streams),
        device(address, bundle, give_up_s=0.2) as edge,
    ):
        await edge.uplink.put(chunk(bundle))
        with pytest.raises(UnavailableError, match="a chunk too many"):
            await edge.uplink.finish()
        assert len(streams) > 1


async def test_a_device_without_the_server_s_bundle_is_told_so(bundle: Bundle) -> None:
    async def has_another(stream: DeviceStream) -> None:
        await stream.context.abort(grpc.StatusCode.NOT_FOUND, "none of the device's bundles")

    async with scripted_server(has_another) as (address, _), device(address, bundle) as edge:
        with pytest.raises(UnknownBundleError, match="none of the device's bundles"):
            await edge.uplink.ready()


async def test_a_bundle_the_device_does_not_have_is_not_encoded_for(bundle: Bundle) -> None:
    async def chooses_another(stream: DeviceStream) -> None:
        await stream.read()
        await stream.write(Welcome("f" * 64, 0, 8, 0, 16384, 64))
        await stream.read()

    async with scripted_server(chooses_another) as (address, _), device(address, bundle) as edge:
        with pytest.raises(UnknownBundleError, match="ffffffffffff"):
            await edge.uplink.ready()


@pytest.mark.parametrize(
    "code",
    [grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.ABORTED, grpc.StatusCode.UNIMPLEMENTED],
)
async def test_a_refusal_is_not_tried_again(bundle: Bundle, code: grpc.StatusCode) -> None:
    async def refuses(stream: DeviceStream) -> None:
        await stream.context.abort(code, "no, and here is why")

    async with scripted_server(refuses) as (address, streams), device(address, bundle) as edge:
        with pytest.raises(ProtocolError, match=rf"{code.name}: no, and here is why"):
            await edge.uplink.ready()
        assert len(streams) == 1


async def test_an_error_in_what_takes_the_results_reaches_who_waits(bundle: Bundle) -> None:
    def fails(_: Chunk, __: ChunkResult) -> None:
        raise BrokenPipeError

    async with running_recognizer(bundle.folder) as server:
        servers = Servers((f"127.0.0.1:{server.serving.port}",))
        async with Uplink(servers, UplinkSettings(), hello(bundle), fails, Metrics()) as uplink:
            await uplink.put(chunk(bundle))
            with pytest.raises(BrokenPipeError):
                await uplink.finish()


async def test_no_wait_for_a_server_that_stays_away_is_longer_than_the_promise(
    bundle: Bundle,
) -> None:
    target = Servers(("127.0.0.1:1",))
    uplink = Uplink(target, UplinkSettings(), hello(bundle), lambda *_: None, Metrics())
    waits_s = [uplink._policy._backoff.next_s() for _ in range(200)]
    assert max(waits_s) <= LONGEST_WAIT_S < 2
    assert max(waits_s[100:]) > LONGEST_WAIT_S / 2  # and they do grow
