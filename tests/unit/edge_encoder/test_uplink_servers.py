"""The uplink and several servers: killed, draining, silent, without the bundle, all away."""

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc
import pytest

from edge_encoder.metrics import (
    DRAINED,
    RECONNECTS,
    SILENT,
    UNANSWERED,
    UNKNOWN_BUNDLE,
    Metrics,
)
from edge_encoder.servers import Servers, order
from edge_encoder.uplink import Uplink, UplinkSettings
from mien.backoff import Backoff
from mien.bundle import Bundle
from mien.errors import PolicyError, UnavailableError, UnknownBundleError
from mien.messages.downward import Acknowledgement, Credits, Drain
from mien.messages.upward import EncodedChunk
from mien.messages.watched import WatchedChunk
from mien.v1 import recognition_pb2 as pb
from mien.v1.recognition_pb2_grpc import RecognitionServiceStub
from tests.support.recognizer import Running, eventually, hello, running_recognizer
from tests.support.relay import relay
from tests.support.scripted_server import DeviceStream, scripted_server
from tests.support.services import serving as serving_process
from tests.support.spooling import spool_in
from tests.support.uplinks import FACES, Device, chunk, device, result, serving, welcome

DEVICE = "door"  # that of `hello`


def in_order(addresses: Sequence[str]) -> list[str]:
    """The addresses as the device tries them."""
    return [addresses[index] for index in order(addresses, DEVICE)]


def servers(addresses: Sequence[str]) -> Servers:
    return Servers(addresses, DEVICE)


async def beginning_at(first: str, *others: str) -> Servers:
    """Servers whose walk begins at the first, whatever the order by hash is."""
    listed = servers((first, *others))
    listed.begin_at((await listed.targets(in_order([first, *others]).index(first)))[0])
    return listed


@asynccontextmanager
async def recognizers(
    bundle: Bundle, count: int
) -> AsyncIterator[tuple[Servers, list[tuple[Running, AsyncExitStack]]]]:
    """Real ones, in the order in which the device tries them, each with what ends it."""
    async with AsyncExitStack() as stack:
        by_address = {}
        for _ in range(count):
            own = await stack.enter_async_context(AsyncExitStack())
            running = await own.enter_async_context(
                running_recognizer(bundle.folder, drain_grace_s=30.0)
            )
            by_address[f"127.0.0.1:{running.serving.port}"] = (running, own)
        listed = tuple(by_address)
        yield servers(listed), [by_address[address] for address in in_order(listed)]


@asynccontextmanager
async def watching(server: Running) -> AsyncIterator[list[int]]:
    """The seqs that a consumer of one recognizer sees, also while that drains."""
    seen: list[int] = []
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{server.serving.port}")
    call = RecognitionServiceStub(channel).WatchRecognitions(pb.WatchRecognitionsRequest())

    async def read() -> None:
        async for response in call:
            seen.append(WatchedChunk.from_proto(response).seq)

    await call.initial_metadata()
    task = asyncio.create_task(read())
    try:
        yield seen
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await channel.close()


def check_books(edge: Device, chunks: int) -> None:
    """Every face was answered once, or is counted as dropped."""
    assert all(count == 1 for count in edge.recognised.values())
    dropped = sum(edge.metrics.drops.values())
    assert len(edge.answers) * FACES + dropped == chunks * FACES


async def test_when_a_recognizer_is_killed_the_device_goes_on_at_another(
    bundle: Bundle, tmp_path: Path
) -> None:
    with (
        serving_process(bundle.folder, tmp_path / "one") as one,
        serving_process(bundle.folder, tmp_path / "two") as two,
    ):
        listed = (one.address, two.address)
        first, second = in_order(listed)
        async with device(servers(listed), bundle) as edge:
            await edge.uplink.put(chunk(bundle, 0))
            await eventually(lambda: len(edge.answers) == 1)
            assert edge.sample("server_position") == listed.index(first) + 1
            for seed in range(1, 40):
                await edge.uplink.put(chunk(bundle, seed))
            (one if first == one.address else two).process.process.kill()
            for seed in range(40, 60):
                await edge.uplink.put(chunk(bundle, seed))
            await eventually(lambda: edge.sample("server_position") == listed.index(second) + 1)
            await edge.uplink.finish()
            check_books(edge, 60)
            # Nothing was acknowledged without its answer by who was killed: it is all recognised.
            assert not edge.metrics.drops
            assert sum(edge.reconnects(reason) or 0 for reason in RECONNECTS) >= 1
    assert edge.sample("server_position") == 0


async def test_a_draining_recognizer_s_device_goes_on_at_another_and_nothing_is_there_twice(
    bundle: Bundle,
) -> None:
    async with (
        recognizers(bundle, 2) as (listed, [(first, end_first), (second, _)]),
        watching(second) as seen_by_second,
        device(listed, bundle) as edge,
    ):
        async with watching(first) as seen_by_first:
            for seed in range(10):
                await edge.uplink.put(chunk(bundle, seed))
            await eventually(lambda: len(edge.answers) >= 1)
            await end_first.aclose()  # drains
            for seed in range(10, 20):
                await edge.uplink.put(chunk(bundle, seed))
            await edge.uplink.finish()
            await eventually(lambda: len(seen_by_first) + len(seen_by_second) == 20)
            assert sorted(seen_by_first + seen_by_second) == list(range(1, 21))
        assert edge.reconnects(DRAINED) == 1
        check_books(edge, 20)
        assert not edge.metrics.drops


async def test_a_device_keeps_to_its_server_although_another_was_first(bundle: Bundle) -> None:
    async with recognizers(bundle, 2) as (listed, [(first, end_first), (second, _)]):
        port = first.serving.port
        async with device(listed, bundle) as edge:
            await eventually(lambda: first.sample("streams") == 1)
            await end_first.aclose()
            async with running_recognizer(bundle.folder, port=port) as back:
                for seed in range(5):
                    await edge.uplink.put(chunk(bundle, seed))
                await edge.uplink.finish()
                assert back.sample("chunks_total", status="result") == 0
            assert second.sample("chunks_total", status="result") == 5


async def test_when_all_are_away_and_one_is_back_it_gets_everything(bundle: Bundle) -> None:
    async with recognizers(bundle, 3) as (listed, running):
        port = running[2][0].serving.port
        async with device(listed, bundle, give_up_s=math.inf) as edge:
            await edge.uplink.put(chunk(bundle, 0))
            await eventually(lambda: len(edge.answers) == 1)
            await asyncio.gather(*(end.aclose() for _, end in running))
            for seed in range(1, 12):
                await edge.uplink.put(chunk(bundle, seed))
            # Two rounds in vain.
            await eventually(lambda: (edge.reconnects("unavailable") or 0) >= 6)
            assert edge.sample("server_position") == 0
            async with running_recognizer(bundle.folder, port=port) as back:
                await edge.uplink.finish()
                assert back.sample("chunks_total", status="result") == 11
            check_books(edge, 12)
            assert not edge.metrics.drops


@asynccontextmanager
async def nothing_listens(count: int) -> AsyncIterator[list[str]]:
    """Addresses at which nothing listens now."""
    async with AsyncExitStack() as stack:
        found = [
            (await stack.enter_async_context(scripted_server(_says_nothing)))[0]
            for _ in range(count)
        ]
    yield found


async def _says_nothing(stream: DeviceStream) -> None:
    while await stream.read() is not None:
        pass


async def test_others_are_tried_soon_and_only_whole_rounds_back_off(bundle: Bundle) -> None:
    bounds: list[float] = []

    def shortest(low: float, high: float) -> float:
        bounds.append(high)
        return 0.0

    backoff = Backoff(first_s=1.0, longest_s=4.0, uniform=shortest)
    async with (
        nothing_listens(3) as addresses,
        device(servers(addresses), bundle, backoff=backoff, give_up_s=math.inf),
    ):
        await eventually(lambda: len(bounds) >= 12)
    assert bounds[:12] == [1, 1, 1.0, 1, 1, 2.0, 1, 1, 4.0, 1, 1, 4.0]


async def test_before_giving_up_every_server_had_its_turn(bundle: Bundle) -> None:
    async with (
        nothing_listens(2) as addresses,
        scripted_server(serving(bundle)) as (live, _),
    ):
        listed = await beginning_at(*addresses, live)
        async with device(listed, bundle, give_up_s=0.0) as edge:
            await edge.uplink.put(chunk(bundle))
            await edge.uplink.finish()
            assert len(edge.answers) == 1
    async with device(servers(addresses), bundle, give_up_s=0.0) as edge:
        with pytest.raises(UnavailableError, match=f"no recognizer at {', '.join(addresses)} for"):
            await edge.uplink.ready()
        assert edge.reconnects("unavailable") == 1


async def test_a_dead_peer_is_noticed_although_it_owes_nothing(bundle: Bundle) -> None:
    frozen = asyncio.Event()
    async with (
        scripted_server(serving(bundle)) as (behind, _),
        relay(behind, frozen) as one,
        scripted_server(serving(bundle)) as (two, streams),
    ):
        listed = await beginning_at(one, two)
        async with device(listed, bundle, keepalive_s=0.2, answer_timeout_s=0.3) as edge:
            await eventually(lambda: edge.sample("server_position") == 1)
            frozen.set()
            await eventually(lambda: edge.sample("server_position") == 2)
            assert len(streams) == 1
            assert edge.reconnects("unavailable") == 1
            assert edge.reconnects(SILENT) == 0


async def test_what_one_server_settled_without_an_answer_is_recognised_again_at_another(
    bundle: Bundle,
) -> None:
    async def settles_silently(stream: DeviceStream) -> None:
        await stream.read()
        await stream.write(welcome(bundle))
        await stream.read()  # recognised, published; then the line is cut
        await stream.context.abort(grpc.StatusCode.INTERNAL, "the line is cut")

    async with (
        scripted_server(settles_silently) as (one, at_one),
        scripted_server(settles_silently, serving(bundle)) as (two, at_two),
        device(servers([one, two]), bundle) as edge,
    ):
        await edge.uplink.put(chunk(bundle))
        await edge.uplink.finish()
        sent = [item for stream in (*at_one, *at_two) for item in stream.chunks]
        assert {item.seq for item in sent} == {1}
        assert len(sent) >= 2  # at least once at servers, under one name
        check_books(edge, 1)
        assert edge.metrics.drops[UNANSWERED] == 0


async def test_a_server_without_the_bundle_is_left_for_one_that_has_it(bundle: Bundle) -> None:
    async def has_another(stream: DeviceStream) -> None:
        await stream.context.abort(grpc.StatusCode.NOT_FOUND, "none of the device's bundles")

    async with (
        scripted_server(has_another) as (one, _),
        scripted_server(has_another) as (two, _),
        scripted_server(serving(bundle)) as (three, streams),
    ):
        async with device(servers([one, two, three]), bundle) as edge:
            await edge.uplink.put(chunk(bundle))
            await edge.uplink.finish()
            assert len(streams) == 1
        async with device(servers([one, two]), bundle) as edge:
            with pytest.raises(UnknownBundleError, match="none of the device's bundles"):
                await edge.uplink.ready()
            assert edge.reconnects(UNKNOWN_BUNDLE) == 1


async def test_what_a_server_forbids_is_not_asked_of_another(bundle: Bundle) -> None:
    async def forbids(stream: DeviceStream) -> None:
        await stream.context.abort(grpc.StatusCode.PERMISSION_DENIED, "not for this purpose")

    async with (
        scripted_server(forbids) as (one, at_one),
        scripted_server(forbids) as (two, at_two),
        device(servers([one, two]), bundle) as edge,
    ):
        with pytest.raises(PolicyError, match="does not let this device in: not for this purpose"):
            await edge.uplink.ready()
        assert len(at_one) + len(at_two) == 1


async def test_the_addresses_of_one_name_are_tried_one_after_the_other(bundle: Bundle) -> None:
    async with (
        nothing_listens(3) as dead,
        scripted_server(serving(bundle)) as (live, streams),
    ):
        found = [(host, int(port)) for host, port in (a.split(":") for a in [*dead, live])]
        listed = Servers(("recognizer:50051",), DEVICE, lambda _: found)
        async with device(listed, bundle, give_up_s=0.0) as edge:
            await edge.uplink.put(chunk(bundle))
            await edge.uplink.finish()
            assert len(streams) == 1
            assert edge.sample("server_position") == 0
            sent = edge.uplink.wire_bytes
        assert sent is None or sent > len(chunk(bundle).payload)


async def test_the_name_and_not_the_address_is_the_authority(bundle: Bundle) -> None:
    seen = bytearray()
    asked = asyncio.Event()

    async def http2(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))  # empty SETTINGS
        while b"StreamFaces" not in seen and (data := await reader.read(65536)):
            seen.extend(data)
        asked.set()
        writer.close()

    listener = await asyncio.start_server(http2, "127.0.0.1", 0)
    address = listener.sockets[0].getsockname()[:2]
    listed = Servers(("recognizer.example:50051",), DEVICE, lambda _: [address])
    async with device(listed, bundle, give_up_s=math.inf):
        async with asyncio.timeout(30):
            await asked.wait()
    listener.close()
    assert b"recognizer.example:50051" in seen


async def test_what_waits_on_disk_follows_to_the_server_that_is_in_use(
    bundle: Bundle, tmp_path: Path
) -> None:
    """Also an epoch that the first server refused: the second may have its bundle."""
    refused = asyncio.Event()

    async def refuses_old_epochs(stream: DeviceStream) -> None:
        await stream.read()
        assert stream.hello is not None
        if stream.hello.epoch == 1:
            refused.set()
            await stream.context.abort(grpc.StatusCode.NOT_FOUND, "no such bundle")
        await stream.write(welcome(bundle))
        await refused.wait()
        await stream.write(Drain(0))
        while await stream.read() is not None:
            pass

    arrived: list[tuple[int, int]] = []

    async def takes_all(stream: DeviceStream) -> None:
        await stream.read()
        assert stream.hello is not None
        await stream.write(welcome(bundle))
        while isinstance(message := await stream.read(), EncodedChunk):
            arrived.append((stream.hello.epoch, message.seq))
            await stream.write(result(message.seq), Acknowledgement(message.seq), Credits(1))

    metrics = Metrics()
    late: list[int] = []
    async with (
        scripted_server(refuses_old_epochs) as (one, at_one),
        scripted_server(takes_all) as (two, _),
    ):
        listed = await beginning_at(one, two)
        with spool_in(tmp_path, metrics) as spool:
            spool.add(hello(bundle, epoch=1), 1, chunk(bundle, 1))
            async with Uplink(
                listed,
                UplinkSettings(give_up_s=math.inf, late_chunks_per_s=1000.0),
                hello(bundle, epoch=2),
                lambda chunk, result: None,
                metrics,
                backoff=Backoff(first_s=0.01, longest_s=0.05),
                spool=spool,
            ):
                await eventually(lambda: spool.total.chunks == 0)
            late = [stream.hello.epoch for stream in at_one if stream.hello]
    assert late == [2, 1]
    assert arrived == [(1, 1)]
