"""What every hub promises, asked of each kind."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from mien.errors import OverloadedError, ProtocolError, ResumeLostError
from tests.support.hubs import Opened, opened, origin, publish, read, result, seqs
from tests.support.nats_server import NatsServer, nats_server

READ_S = 60  # patience with a busy machine, never waited for


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    with nats_server(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture(params=["local", "nats"])
async def hub(request: pytest.FixtureRequest) -> AsyncIterator[Opened]:
    """An open hub that holds ten minutes of results, with room for three watchers."""
    settings = {"retention_s": 600.0, "retention_chunks": 200, "max_watchers": 3}
    if request.param == "nats":
        settings["nats"] = request.getfixturevalue("nats").address
    async with asyncio.timeout(READ_S), opened(watcher_queue=64, **settings) as hub:
        yield hub


async def test_each_watcher_gets_each_result_once_in_order(hub: Opened) -> None:
    async with hub.hub.subscription((), ()) as one, hub.hub.subscription((), ()) as two:
        await publish(hub.hub, range(1, 31), "front.door", epoch=11)
        for subscription in (one, two):
            chunks = await read(subscription, 30)
            assert seqs(chunks) == list(range(1, 31))
            assert {(chunk.device_id, chunk.epoch, chunk.dropped) for chunk in chunks} == {
                ("front.door", 11, 0)
            }
            assert chunks[0].recognitions == result(1).recognitions
            assert chunks[0].expressions == origin().expressions


async def test_filters_by_device_and_by_track(hub: Opened) -> None:
    async with (
        hub.hub.subscription(("gate.1",), ()) as gate,
        hub.hub.subscription((), (9,)) as track_9,
    ):
        await hub.hub.publish(origin("gate=1", 21), result(1, (9, 7)))
        await hub.hub.publish(origin("gate.1", 21), result(2, (7, 7)))
        await hub.hub.publish(origin("gate.1", 21), result(3, (9, 7, 9)))
        assert seqs(await read(gate, 2)) == [2, 3]
        of_track = await read(track_9, 2)
    assert [(c.seq, [f.index for f in c.recognitions]) for c in of_track] == [(1, [0]), (3, [0, 2])]


async def test_a_chunk_without_recognitions_is_published_and_not_seen(hub: Opened) -> None:
    async with hub.hub.subscription((), ()) as subscription:
        await hub.hub.publish(origin(epoch=31), result(1, ()))
        await publish(hub.hub, [2], epoch=31)
        assert seqs(await read(subscription, 1)) == [2]


async def test_a_watcher_that_comes_back_goes_on_after_its_token(hub: Opened) -> None:
    async with hub.hub.subscription((), ()) as first:
        await publish(hub.hub, range(1, 6), epoch=41)
        token = (await read(first, 2))[-1].resume_token
    await publish(hub.hub, range(6, 9), epoch=41)
    async with hub.hub.subscription((), (), token) as second:
        await publish(hub.hub, [9], epoch=41)
        assert seqs(await read(second, 7)) == [3, 4, 5, 6, 7, 8, 9]
    async with hub.hub.subscription(("door",), (7,), token) as third:
        await publish(hub.hub, [1], "gate", epoch=41)
        await publish(hub.hub, [10], epoch=41)
        assert seqs(await read(third, 8)) == [3, 4, 5, 6, 7, 8, 9, 10]


async def test_what_is_resumed_may_be_more_than_a_queue_has_room_for(hub: Opened) -> None:
    async with hub.hub.subscription((), ()) as first:
        await publish(hub.hub, [1], epoch=51)
        token = (await read(first, 1))[0].resume_token
    await publish(hub.hub, range(2, 102), epoch=51)
    async with hub.hub.subscription((), (), token) as second:
        chunks = await read(second, 100)
    assert seqs(chunks) == list(range(2, 102))
    assert chunks[-1].dropped == 0


async def test_one_who_resumes_and_reads_slowly_loses_the_oldest_and_is_told(hub: Opened) -> None:
    async with hub.hub.subscription((), ()) as first:
        await publish(hub.hub, [1], epoch=61)
        token = (await read(first, 1))[0].resume_token
    await publish(hub.hub, range(2, 151), epoch=61)
    async with (
        hub.hub.subscription((), (), token) as slow,
        hub.hub.subscription((), ()) as watermark,
    ):
        chunks = await read(slow, 1)
        for seq in range(151, 401, 25):
            await publish(hub.hub, range(seq, seq + 25), epoch=61)
            await read(watermark, 25)
        while chunks[-1].seq != 400:
            chunks += await read(slow, 1)
    assert seqs(chunks) == sorted(set(seqs(chunks)))
    assert chunks[-1].dropped == hub.sample("dropped_total", reason="watcher_slow") > 0
    assert len(chunks) + chunks[-1].dropped == 399


async def test_a_slow_watcher_loses_the_oldest_and_is_told_how_many(hub: Opened) -> None:
    async with (
        hub.hub.subscription((), ()) as slow,
        hub.hub.subscription((), ()) as quick,
    ):
        for seq in range(1, 101, 20):
            await publish(hub.hub, range(seq, seq + 20), epoch=71)
            await read(quick, 20)
        chunks = await read(slow, 64)
    assert seqs(chunks) == list(range(37, 101))
    assert chunks[0].dropped == hub.sample("dropped_total", reason="watcher_slow") == 36


async def test_a_token_that_is_too_old_is_said_to_be(hub: Opened) -> None:
    async with hub.hub.subscription((), ()) as first:
        await publish(hub.hub, [1], epoch=81)
        token = (await read(first, 1))[0].resume_token
        for seq in range(2, 302, 50):
            await publish(hub.hub, range(seq, seq + 50), epoch=81)
            await read(first, 50)
    with pytest.raises(ResumeLostError, match="not held any more"):
        async with hub.hub.subscription((), (), token):
            pass


async def test_a_token_of_another_run_is_said_to_be(hub: Opened) -> None:
    async with hub.hub.subscription((), ()) as first:
        await publish(hub.hub, [1], epoch=91)
        token = (await read(first, 1))[0].resume_token
    other_run = token[:1] + bytes(8) + token[9:]
    ahead = token[:9] + b"\xff" * 8
    for foreign in (other_run, ahead):
        with pytest.raises(ResumeLostError, match="another run"):
            async with hub.hub.subscription((), (), foreign):
                pass


@pytest.mark.parametrize("token", [b"x", bytes(17), b"\x01" * 16, b"\x01" * 18, b"\x01" * 5000])
async def test_a_token_that_nobody_gave_out_is_refused(hub: Opened, token: bytes) -> None:
    with pytest.raises(ProtocolError, match="resume_token"):
        async with hub.hub.subscription((), (), token):
            pass


async def test_watchers_beyond_the_limit_are_refused_and_places_come_free(hub: Opened) -> None:
    for _ in range(2):
        async with (
            hub.hub.subscription((), ()),
            hub.hub.subscription((), ()),
            hub.hub.subscription((), ()),
        ):
            assert hub.sample("watchers") == 3
            with pytest.raises(OverloadedError):
                async with hub.hub.subscription((), ()):
                    pass
    assert hub.sample("watchers") == 0


async def test_a_closed_hub_lets_everything_be_read_and_ends(hub: Opened) -> None:
    async with hub.hub.subscription((), ()) as subscription:
        await publish(hub.hub, [1], epoch=101)
        first = await read(subscription, 1)
        hub.hub.close()
        assert [chunk async for chunk in subscription] == []
    assert seqs(first) == [1]
