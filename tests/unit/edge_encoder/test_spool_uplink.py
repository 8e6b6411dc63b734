"""The uplink with a spool, against real servers: outages, restarts, and who goes first."""

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import grpc
import pytest

from cloud_recognizer.status import status_of
from edge_encoder.chunker import Chunk, FrameTime
from edge_encoder.metrics import UNANSWERED, Metrics
from edge_encoder.servers import Servers
from edge_encoder.spool import catch_up
from edge_encoder.spool.lane import MAX_IN_FLIGHT, Lane
from edge_encoder.spool.store import Spool
from edge_encoder.uplink import Uplink, UplinkSettings
from mien.backoff import Backoff
from mien.bundle import Bundle
from mien.errors import RateLimitedError
from mien.messages.downward import Acknowledgement, Credits, Welcome
from mien.messages.results import ChunkResult, ItemStatus
from mien.messages.upward import EncodedChunk, Hello
from mien.messages.watched import WatchedChunk
from mien.v1 import recognition_pb2 as pb
from mien.v1.recognition_pb2_grpc import RecognitionServiceStub
from tests.support.recognizer import Running, eventually, hello, payload, running_recognizer
from tests.support.scripted_server import DeviceStream, Script, scripted_server
from tests.support.spooling import epoch, kept, numbered, spool_in

FACES = 2


@dataclass
class Device:
    """An uplink with a spool, and what came of it."""

    uplink: Uplink
    metrics: Metrics
    spool: Spool
    answers: list[tuple[Chunk, ChunkResult]] = field(default_factory=list)
    late: list[tuple[Hello, Chunk]] = field(default_factory=list)


@asynccontextmanager
async def device(
    server: str, opening: Hello, folder: Path, **settings: Any
) -> AsyncIterator[Device]:
    metrics = Metrics()
    fast: dict[str, Any] = {"give_up_s": math.inf, "late_chunks_per_s": 1000.0}
    with spool_in(folder, metrics) as spool:
        async with Uplink(
            Servers(server.split(",")),
            UplinkSettings(**(fast | settings)),
            opening,
            lambda chunk, result: edge.answers.append((chunk, result)),
            metrics,
            backoff=Backoff(first_s=0.01, longest_s=0.05),
            spool=spool,
            on_late_result=lambda hello, chunk, _: edge.late.append((hello, chunk)),
        ) as uplink:
            edge = Device(uplink, metrics, spool)
            yield edge


def run(bundle: Bundle, number: int) -> Hello:
    """The Hello of one of several runs; each began at its own time."""
    return replace(hello(bundle, epoch=number), epoch_start_unix_ms=1_700_000_000_000 + number)


def chunk(bundle: Bundle, seed: int) -> Chunk:
    return Chunk(payload(bundle, FACES, seed=seed), (FrameTime(seed, 0.0),) * FACES)


def chunks(bundle: Bundle, seeds: range) -> list[Chunk]:
    return [chunk(bundle, seed) for seed in seeds]


@asynccontextmanager
async def watching(server: Running) -> AsyncIterator[list[WatchedChunk]]:
    """What a consumer sees, in its order."""
    seen: list[WatchedChunk] = []
    call = server.stub.WatchRecognitions(pb.WatchRecognitionsRequest())

    async def read() -> None:
        async for response in call:
            seen.append(WatchedChunk.from_proto(response))

    await call.initial_metadata()
    task = asyncio.create_task(read())
    try:
        yield seen
    finally:
        task.cancel()
        call.cancel()
        await asyncio.gather(task, return_exceptions=True)


def names(seen: list[WatchedChunk]) -> list[tuple[int, int]]:
    return [(item.epoch, item.seq) for item in seen]


async def no_server(bundle: Bundle) -> str:
    async with scripted_server(answering(bundle)) as (address, _):
        return address


def answering(
    bundle: Bundle,
    log: list[tuple[int, int]] | None = None,
    after: Mapping[int, asyncio.Event] = MappingProxyType({}),
) -> Script:
    """Welcome, then answer each chunk at once; note (epoch, seq) in the order of arrival.

    after: an event by Hello's epoch that the answers wait for.
    """

    async def script(stream: DeviceStream) -> None:
        await stream.read()
        assert stream.hello is not None
        await stream.write(Welcome(bundle.bundle_id, 0, 8, 0, 16384, 64))
        while isinstance(message := await stream.read(), EncodedChunk):
            if log is not None:
                log.append((stream.hello.epoch, message.seq))
            if stream.hello.epoch in after:
                await after[stream.hello.epoch].wait()
            result = ChunkResult(message.seq, ItemStatus.RESULT)
            await stream.write(result, Acknowledgement(message.seq), Credits(1))

    return script


async def test_what_is_acknowledged_leaves_the_disk(bundle: Bundle, tmp_path: Path) -> None:
    async with (
        running_recognizer(bundle.folder) as server,
        device(f"127.0.0.1:{server.serving.port}", hello(bundle), tmp_path) as edge,
    ):
        await eventually(lambda: edge.uplink.welcome is not None)
        for item in chunks(bundle, range(10)):
            edge.uplink.offer(item)
        await eventually(lambda: edge.spool.total.chunks == 0)
        assert [item for item, _ in edge.answers] == chunks(bundle, range(10))


async def test_an_outage_that_fills_the_queue_loses_nothing_and_fresh_faces_go_first(
    bundle: Bundle, tmp_path: Path
) -> None:
    opening = hello(bundle)
    address = await no_server(bundle)
    port = int(address.rpartition(":")[2])
    async with device(address, opening, tmp_path, queue_chunks=4) as edge:
        for item in chunks(bundle, range(30)):
            edge.uplink.offer(item)
        assert edge.spool.total.chunks == 30
        arrived: list[tuple[int, int]] = []
        fresh_is_answered = asyncio.Event()
        # Old chunks get no answer before the fresh one has its own: who put it behind them would
        # wait for ever.
        script = answering(bundle, arrived, {opening.epoch: fresh_is_answered})
        async with scripted_server(script, port=port):
            await eventually(lambda: edge.uplink.welcome is not None)
            edge.uplink.offer(chunk(bundle, 99))
            await eventually(lambda: len(edge.answers) == 1)
            assert edge.answers[0][0] == chunk(bundle, 99)
            fresh_is_answered.set()
            await eventually(lambda: edge.spool.total.chunks == 0)
        # Old faces went under the epoch that they were accepted in, a fresh one under its own.
        fresh = [name for name in arrived if name[0] != opening.epoch]
        assert [seq for _, seq in fresh] == [1]
        assert fresh[0][0] > opening.epoch
        assert [name for name in arrived if name[0] == opening.epoch] == [
            (opening.epoch, seq) for seq in range(1, 31)
        ]
        assert not edge.metrics.drops


async def test_face_times_still_count_from_the_start_of_the_run(
    bundle: Bundle, tmp_path: Path
) -> None:
    address = await no_server(bundle)
    port = int(address.rpartition(":")[2])
    async with device(address, hello(bundle), tmp_path, queue_chunks=2) as edge:
        for item in chunks(bundle, range(8)):
            edge.uplink.offer(item)
        async with (
            running_recognizer(bundle.folder, port=port) as server,
            watching(server) as seen,
        ):
            await eventually(lambda: edge.uplink.welcome is not None)
            edge.uplink.offer(chunk(bundle, 99))
            await eventually(lambda: len(edge.answers) == 9)
            await eventually(lambda: len(seen) == 9)
    assert {item.epoch_start_unix_ms for item in seen} == {1_700_000_000_000}
    assert len(set(names(seen))) == 9


async def test_a_queue_that_runs_over_while_connected_gives_fresh_faces_an_epoch(
    bundle: Bundle, tmp_path: Path
) -> None:
    full = asyncio.Event()

    async def grants_nothing(stream: DeviceStream) -> None:
        await stream.read()
        await stream.write(Welcome(bundle.bundle_id, 0, 0, 0, 16384, 64))
        assert await stream.read() is None  # the device closes its side
        full.set()

    arrived: list[tuple[int, int]] = []
    scripts = (grants_nothing, answering(bundle, arrived))
    async with (
        scripted_server(*scripts) as (address, streams),
        device(address, hello(bundle), tmp_path, queue_chunks=4) as edge,
    ):
        await eventually(lambda: edge.uplink.welcome is not None)
        for item in chunks(bundle, range(9)):
            edge.uplink.offer(item)
        await full.wait()
        await eventually(lambda: len(edge.answers) == 9)
        assert streams[1].hello is not None
        assert streams[1].hello.epoch > hello(bundle).epoch
        assert not edge.metrics.drops


async def test_earlier_runs_are_sent_in_order_under_their_own_hello(
    bundle: Bundle, tmp_path: Path
) -> None:
    before = [run(bundle, number) for number in (1, 2)]
    with spool_in(tmp_path) as spool:
        for opening in before:
            for seq in (1, 2, 3):
                spool.add(opening, seq, chunk(bundle, 10 * opening.epoch + seq))
    async with (
        running_recognizer(bundle.folder) as server,
        watching(server) as seen,
        device(f"127.0.0.1:{server.serving.port}", run(bundle, 3), tmp_path) as edge,
    ):
        await eventually(lambda: edge.spool.total.chunks == 0)
        await eventually(lambda: len(seen) == 6)
        assert names(seen) == [(number, seq) for number in (1, 2) for seq in (1, 2, 3)]
        assert [opening for opening, _ in edge.late] == [before[0]] * 3 + [before[1]] * 3
        assert not edge.answers  # those are of this run


async def test_what_the_server_has_of_an_earlier_run_is_not_sent_again(
    bundle: Bundle, tmp_path: Path
) -> None:
    """The process was killed between the sending of three chunks and their acknowledgement."""
    before = run(bundle, 1)
    async with (
        running_recognizer(bundle.folder) as server,
        watching(server) as seen,
    ):
        address = f"127.0.0.1:{server.serving.port}"
        async with device(address, before, tmp_path / "elsewhere") as first:
            for seq in (1, 2, 3):
                first.uplink.offer(chunk(bundle, seq))
            await eventually(lambda: len(first.answers) == 3)
        with spool_in(tmp_path / "spool") as spool:
            for seq in (1, 2, 3, 4):
                spool.add(before, seq, chunk(bundle, seq))
        async with device(address, run(bundle, 2), tmp_path / "spool") as second:
            await eventually(lambda: second.spool.total.chunks == 0)
            await eventually(lambda: len(seen) == 4)
            assert second.metrics.drops == {UNANSWERED: 3 * FACES}
        assert Counter(names(seen)) == Counter((1, seq) for seq in (1, 2, 3, 4))


async def test_an_epoch_whose_bundle_is_not_served_waits_and_others_are_sent(
    bundle: Bundle, tmp_path: Path
) -> None:
    with spool_in(tmp_path) as spool:
        spool.add(epoch(1), 1, numbered(1))  # of a bundle that nobody has
        spool.add(run(bundle, 2), 1, chunk(bundle, 1))
    async with (
        running_recognizer(bundle.folder) as server,
        device(f"127.0.0.1:{server.serving.port}", run(bundle, 3), tmp_path) as edge,
    ):
        await eventually(lambda: len(edge.late) == 1)
        edge.uplink.offer(chunk(bundle, 5))
        await eventually(lambda: len(edge.answers) == 1)
        assert kept(edge.spool, epoch(1)) == [1]


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED])
async def test_a_late_stream_that_breaks_leaves_the_live_one_alone_and_is_opened_again(
    bundle: Bundle, tmp_path: Path, code: grpc.StatusCode
) -> None:
    broken = 0

    async def script(stream: DeviceStream) -> None:
        nonlocal broken
        await stream.read()
        assert stream.hello is not None
        await stream.write(Welcome(bundle.bundle_id, 0, 8, 0, 16384, 64))
        while isinstance(message := await stream.read(), EncodedChunk):
            if stream.hello.epoch == 1 and broken < 2:
                broken += 1
                await stream.context.abort(code, "not now")
            result = ChunkResult(message.seq, ItemStatus.RESULT)
            await stream.write(result, Acknowledgement(message.seq), Credits(1))

    with spool_in(tmp_path) as spool:
        for seq in (1, 2):
            spool.add(run(bundle, 1), seq, chunk(bundle, seq))
    async with (
        scripted_server(script) as (address, streams),
        device(address, run(bundle, 2), tmp_path) as edge,
    ):
        await eventually(lambda: len(edge.late) == 2)
        edge.uplink.offer(chunk(bundle, 9))
        await eventually(lambda: len(edge.answers) == 1)
        assert [stream.hello.epoch for stream in streams if stream.hello] == [2, 1, 1, 1]


async def test_without_a_server_a_camera_begins_and_ends_and_all_is_on_disk(
    bundle: Bundle, tmp_path: Path
) -> None:
    address = await no_server(bundle)
    async with device(address, hello(bundle), tmp_path, queue_chunks=2) as edge:
        assert await edge.uplink.ready() is None
        for item in chunks(bundle, range(5)):
            edge.uplink.offer(item)
        await edge.uplink.finish()
    assert not edge.metrics.drops
    with spool_in(tmp_path) as spool:
        assert kept(spool, hello(bundle)) == [1, 2, 3, 4, 5]


async def test_who_is_told_to_wait_for_long_still_ends_at_once_with_all_on_disk(
    bundle: Bundle, tmp_path: Path
) -> None:
    refused = asyncio.Event()

    async def script(stream: DeviceStream) -> None:
        await stream.read()
        refused.set()
        await stream.context.abort_with_status(status_of(RateLimitedError("no", 250.0)))

    async with (
        scripted_server(script) as (address, streams),
        device(address, hello(bundle), tmp_path) as edge,
    ):
        edge.uplink.offer(chunk(bundle, 1))
        await refused.wait()
        async with asyncio.timeout(120):  # well below the wait
            await edge.uplink.finish()
        assert len(streams) == 1
        assert kept(edge.spool, hello(bundle)) == [1]


async def test_no_old_chunk_goes_while_a_fresh_one_waits_and_none_out_of_turn(
    bundle: Bundle, tmp_path: Path
) -> None:
    turns: asyncio.Queue[None] = asyncio.Queue()
    arrived: list[tuple[int, int]] = []
    live_waits = True
    with spool_in(tmp_path) as spool:
        old = run(bundle, 1)
        for seq in range(1, 6):
            spool.add(old, seq, chunk(bundle, seq))
        late = catch_up.CatchUp(
            spool,
            Metrics(),
            lambda *_: None,
            live_epoch=lambda: ("door", 2),
            may_send=lambda: not live_waits,
            turn=turns.get,
            welcome_timeout_s=5.0,
            answer_timeout_s=10.0,
        )
        async with (
            scripted_server(answering(bundle, arrived)) as (address, streams),
            grpc.aio.insecure_channel(address) as channel,
        ):
            task = asyncio.create_task(late.run(RecognitionServiceStub(channel)))
            await eventually(lambda: len(streams) == 1 and streams[0].hello is not None)
            for _ in range(3):
                turns.put_nowait(None)
            await eventually(turns.empty)
            live_waits = False
            for expected in (1, 2):
                turns.put_nowait(None)
                await eventually(lambda: len(arrived) == expected)  # noqa: B023
            await eventually(lambda: spool.total.chunks == 3)
            assert arrived == [(1, 1), (1, 2)]
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def test_a_lane_sends_one_chunk_a_turn_and_two_at_a_time(tmp_path: Path) -> None:
    with spool_in(tmp_path) as spool:
        for seq in range(1, 6):
            spool.add(epoch(1), seq, numbered(seq))
        lane = Lane(spool, epoch(1))
        assert not lane.can_send
        lane.allow()
        lane.allow()
        assert lane.next_to_send() == (1, numbered(1))
        assert not lane.can_send
        for _ in range(MAX_IN_FLIGHT - 1):
            lane.allow()
            lane.next_to_send()
        lane.allow()
        assert not lane.can_send
        lane.answer(1)
        assert lane.can_send
