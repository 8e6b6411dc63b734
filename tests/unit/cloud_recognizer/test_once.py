"""Results are seen once, also after JetStream has forgotten which chunks it had."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import nats
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.js import JetStreamContext

from cloud_recognizer.hub import nats_stream
from cloud_recognizer.hub.contract import Hub
from cloud_recognizer.hub.high_water import HighWaterMarks
from cloud_recognizer.hub.nats_stream import StreamPlace, StreamSettings, ensure_stream
from mien.bundle import Bundle
from mien.errors import ResumeLostError
from mien.v1 import recognition_pb2 as pb
from tests.support.hubs import opened, origin, publish, read, result
from tests.support.nats_server import NatsServer, nats_server
from tests.support.recognizer import Device, eventually, hello, payload, running_recognizer
from tests.support.relay import way_to

PATIENCE_S = 90
WINDOW_S = 0.2


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NatsServer]:
    """A NATS whose stream knows repetitions for a moment only, as they come minutes later."""
    monkeypatch.setattr(nats_stream, "_LONGEST_DUPLICATE_WINDOW_S", WINDOW_S)
    with nats_server(tmp_path) as running:
        yield running


async def window_passed(server: NatsServer) -> None:
    """Wait until JetStream has forgotten the ids of what it has by now."""
    client = await nats.connect(server.address)
    headers = {"Nats-Msg-Id": secrets.token_hex(8)}
    name = nats_stream.subject("probe", 1)
    probe = pb.WatchRecognitionsResponse(device_id="probe", seq=1).SerializeToString()
    context = client.jetstream()
    await context.publish(name, probe, headers=headers)
    while (await context.publish(name, probe, headers=headers)).duplicate:
        await asyncio.sleep(WINDOW_S)  # its timer, which nothing tells us of
    await client.close()


@asynccontextmanager
async def door(hub: Hub) -> AsyncIterator[list[int]]:
    """The seqs of the device "door" as a consumer sees them, in a list that grows."""
    seen: list[int] = []

    async def consume() -> None:
        async with hub.subscription(("door",), ()) as subscription:
            ready.set()
            async for chunk in subscription:
                seen.append(chunk.seq)

    ready = asyncio.Event()
    consuming = asyncio.create_task(consume())
    await ready.wait()
    try:
        yield seen
    finally:
        consuming.cancel()
        await asyncio.gather(consuming, return_exceptions=True)


async def purge(server: NatsServer) -> None:
    """Empty the stream, as it is when results are not held any more."""
    client = await nats.connect(server.address)
    await client.jetstream().purge_stream(nats_stream.STREAM)
    await client.close()


@pytest.mark.parametrize(
    ("started_late", "held"),
    [(True, True), (False, True), (True, False)],
    ids=["started late", "there before", "when results are gone"],
)
async def test_a_recognizer_that_comes_after_the_window_knows_what_another_has_published(
    server: NatsServer, bundles: Path, bundle: Bundle, started_late: bool, held: bool
) -> None:
    settings = {"nats": server.address}
    async with (
        asyncio.timeout(PATIENCE_S),
        opened(nats=server.address) as consumer,
        door(consumer.hub) as seen,
        AsyncExitStack() as recognizers,
    ):
        if started_late:
            await _publish_unread(bundles, bundle, settings, seen)
            await window_passed(server)
            if not held:
                await purge(server)
        other = await recognizers.enter_async_context(running_recognizer(bundles, **settings))
        if not started_late:
            await _publish_unread(bundles, bundle, settings, seen)
            await window_passed(server)
        await _resume(Device(other.stub), bundle)
        welcome = await Device(other.stub).open(hello(bundle, epoch=2))
        assert welcome.acknowledged_seq == 0
        await eventually(lambda: 5 in seen)
        assert seen == [1, 2, 4, 5]


async def _publish_unread(
    bundles: Path, bundle: Bundle, settings: dict[str, str], seen: list[int]
) -> None:
    """A recognizer is gone before the device has read an answer: to 1, 2, a damaged 3, and 4."""
    async with running_recognizer(bundles, **settings) as gone:
        device = Device(gone.stub)
        assert (await device.open(hello(bundle))).acknowledged_seq == 0
        for seq in (1, 2, 3, 4):
            await device.send(seq, b"damaged" if seq == 3 else payload(bundle))
        await eventually(lambda: 4 in seen)
        device.call.cancel()


async def _resume(device: Device, bundle: Bundle) -> None:
    """The device is told what is settled; what it sends again all the same is acknowledged."""
    assert (await device.open(hello(bundle))).acknowledged_seq == 4
    for seq in (1, 2, 3, 4):
        await device.send(seq, payload(bundle))
    await device.send(5, payload(bundle))
    answers = await device.acknowledged(5)
    assert [answer.seq for answer in answers.results] == [5]
    assert answers.acknowledged[-1] == 5


async def test_a_stream_opens_while_nats_is_away_and_begins_where_results_were_published(
    server: NatsServer, bundles: Path, bundle: Bundle
) -> None:
    async with (
        asyncio.timeout(PATIENCE_S),
        opened(nats=server.address) as other,
        running_recognizer(bundles, nats=server.address) as running,
    ):
        watch = running.stub.WatchRecognitions(pb.WatchRecognitionsRequest())
        await watch.initial_metadata()
        await publish(other.hub, [1, 2], epoch=1)
        for _ in range(2):
            assert isinstance(await watch.read(), pb.WatchRecognitionsResponse)
        server.kill()
        await eventually(lambda: running.sample("hub_connected") == 0)
        device = Device(running.stub)
        assert (await device.open(hello(bundle))).acknowledged_seq == 2
        await device.send(2, payload(bundle))
        assert (await device.acknowledged(2)).results == []
        watch.cancel()


@pytest.mark.parametrize("held", [True, False], ids=["held", "gone"])
async def test_what_waited_while_nats_was_away_is_not_published_when_another_did_it(
    server: NatsServer, held: bool
) -> None:
    """The window has passed when the connection is back: the stream is read before that."""
    async with (
        asyncio.timeout(PATIENCE_S),
        opened(nats=server.address) as one,
        way_to(f"127.0.0.1:{server.port}") as way,
        opened(nats=f"nats://{way.address}") as two,
        door(one.hub) as seen,
    ):
        way.cut()
        await eventually(lambda: two.sample("hub_connected") == 0)
        waiting = [two.hub.publish(origin(), result(seq)) for seq in (1, 2, 3, 4)]
        await publish(one.hub, [1, 2, 3])
        await window_passed(server)
        if not held:
            await purge(server)
        assert two.hub.published_seq("door", 4) == 0
        await way.mend()
        await asyncio.gather(*waiting)
        await publish(one.hub, [5])
        await eventually(lambda: 5 in seen)
        assert seen == [1, 2, 3, 4, 5]
        await eventually(lambda: two.hub.published_seq("door", 4) >= 4)


async def test_what_was_lost_with_the_memory_of_nats_is_published_again(
    server: NatsServer,
) -> None:
    async with asyncio.timeout(PATIENCE_S), opened(nats=server.address) as hub:
        await publish(hub.hub, [1, 2])
        await eventually(lambda: hub.hub.published_seq("door", 4) == 2)
        server.kill()
        server.start()
        await eventually(lambda: hub.hub.published_seq("door", 4) == 0)
        await publish(hub.hub, [1, 2])
        await eventually(lambda: hub.hub.published_seq("door", 4) == 2)


async def test_what_is_marked_is_the_last_chunk_of_each_epoch_and_nothing_of_its_faces(
    server: NatsServer,
) -> None:
    async with asyncio.timeout(PATIENCE_S), opened(nats=server.address) as hub:
        await publish(hub.hub, [1, 2, 3], "front.door", epoch=4)
        await publish(hub.hub, [7], "front.door", epoch=5)
        client = await nats.connect(server.address)
        context = client.jetstream()
        info = await context.stream_info(nats_stream.MARKS)
        while info.state.last_seq < 4:  # NATS marks what it has acknowledged already
            await asyncio.sleep(0.01)
            info = await context.stream_info(nats_stream.MARKS)
        marks = [
            await context.get_last_msg(nats_stream.MARKS, f"mien.v1.published.front=door.{epoch}")
            for epoch in (4, 5)
        ]
        await client.close()
    assert (info.config.max_age, info.config.storage, info.state.messages) == (86_400, "memory", 2)
    assert [mark.data for mark in marks] == [None, None]
    ids = [(mark.headers or {})["Nats-Msg-Id"] for mark in marks]
    assert ids == ["front.door:4:3", "front.door:5:7"]


async def test_a_stream_that_is_made_again_has_no_marks_of_the_one_before(
    server: NatsServer,
) -> None:
    async with asyncio.timeout(PATIENCE_S), opened(nats=server.address) as hub:
        await publish(hub.hub, [1, 2])
        await eventually(lambda: hub.hub.published_seq("door", 4) == 2)
        client = await nats.connect(server.address)
        await client.jetstream().delete_stream(nats_stream.STREAM)
        await client.close()
        await eventually(lambda: hub.sample("hub_connected") == 0)
        await eventually(lambda: hub.sample("hub_connected") == 1)
        assert hub.hub.published_seq("door", 4) == 0


async def test_marks_that_are_none_of_ours_are_counted_and_passed_over(server: NatsServer) -> None:
    async with opened(nats=server.address) as before:
        await publish(before.hub, [3])
        client = await nats.connect(server.address)
        for epoch, headers in enumerate((None, {"Nats-Msg-Id": "door:x:1"})):
            name = f"{nats_stream.MARK_SUBJECTS}.door.{epoch}"
            await client.jetstream().publish(name, b"", headers=headers)
        await client.close()
    async with opened(nats=server.address) as hub:
        assert hub.sample("dropped_total", reason="hub_malformed") == 2
        assert hub.hub.published_seq("door", 4) == 3


async def test_a_hub_publishes_although_what_it_should_read_first_has_left_the_stream(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloud_recognizer.hub.nats_tail._HEARTBEAT_S", 0.2)

    async def then_purged(context: JetStreamContext, settings: StreamSettings) -> StreamPlace:
        place = await ensure_stream(context, settings)
        assert place.last == 3
        await context.purge_stream(nats_stream.STREAM)
        return place

    async with asyncio.timeout(PATIENCE_S):
        async with opened(nats=server.address) as before:
            await publish(before.hub, [1, 2, 3])
        monkeypatch.setattr("cloud_recognizer.hub.nats_hub.ensure_stream", then_purged)
        async with opened(nats=server.address) as hub, hub.hub.subscription((), ()) as watching:
            await publish(hub.hub, [4], epoch=5)
            with pytest.raises(ResumeLostError):
                await read(watching, 1)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 3), st.integers(1, 50))))
def test_a_mark_is_the_highest_of_its_epoch_and_the_quietest_goes(
    notes: list[tuple[str, int, int]],
) -> None:
    marks = HighWaterMarks(capacity=4)
    highest: dict[tuple[str, int], int] = {}
    for device_id, epoch, seq in notes:
        marks.note(device_id, epoch, seq)
        before = highest.pop((device_id, epoch), 0)
        highest[device_id, epoch] = max(before, seq)
        while len(highest) > 4:
            del highest[next(iter(highest))]
        for known in "abc":
            for each in (1, 2, 3):
                assert marks.of(known, each) == highest.get((known, each), 0)
