"""Several recognizers and their NATS: killed, away, forgetful."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import grpc
import nats
import nats.errors
import pytest

from cloud_recognizer.config import CloudConfig
from cloud_recognizer.hub import nats_hub
from cloud_recognizer.hub.message_age import MessageAge
from cloud_recognizer.hub.nats_stream import STREAM, message_id, subject
from mien.bundle import Bundle
from mien.errors import ConfigError, ResumeLostError, UnavailableError
from mien.messages.watched import WatchedChunk
from mien.v1 import recognition_pb2 as pb
from tests.support.hubs import opened, origin, publish, read, result, seqs
from tests.support.nats_server import NatsServer, nats_server
from tests.support.recognizer import Device, eventually, hello, payload, running_recognizer

PATIENCE_S = 90

Watch = grpc.aio.UnaryStreamCall[pb.WatchRecognitionsRequest, pb.WatchRecognitionsResponse]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    with nats_server(tmp_path) as running:
        yield running


async def watched_seqs(watch: Watch, count: int) -> list[int]:
    chunks = []
    for _ in range(count):
        response = await watch.read()
        assert isinstance(response, pb.WatchRecognitionsResponse)
        chunks.append(response.seq)
    return chunks


def test_every_device_id_is_one_token_of_its_own() -> None:
    ids = ["front.door", "front_door", "frontdoor", "front..door", ".", "-", "_"]
    subjects = {subject(device_id, 4) for device_id in ids}
    assert len(subjects) == len(ids)
    assert {len(each.split(".")) for each in subjects} == {5}
    assert subject("front.door", 4) == "mien.v1.recognitions.front=door.4"


async def test_the_stream_holds_little_and_not_for_long(server: NatsServer) -> None:
    async with opened(nats=server.address) as hub:
        await publish(hub.hub, [1, 2], "front.door")
        client = await nats.connect(server.address)
        info = await client.jetstream().stream_info(STREAM)
        message = await client.jetstream().get_msg(STREAM, 2)
        await client.close()
    config = info.config
    assert (config.max_age, config.duplicate_window, config.storage) == (60, 60, "memory")
    assert (config.max_bytes, config.max_msgs, config.discard) == (64 << 20, 65536, "old")
    assert message.subject == "mien.v1.recognitions.front=door.4"
    assert message.headers is not None
    assert message.headers["Nats-Msg-Id"] == message_id("front.door", 4, 2) == "front.door:4:2"
    stored = WatchedChunk.from_proto(pb.WatchRecognitionsResponse.FromString(message.data or b""))
    assert (stored.seq, stored.recognitions) == (2, result(2).recognitions)


async def test_a_hub_closes_though_a_cancellation_is_taken_for_a_lost_connection(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    connecting = asyncio.Event()

    @asynccontextmanager
    async def deaf(_: object) -> AsyncIterator[None]:
        """Connects for ever, and treats its first cancellation as nats-py does."""
        first = not connecting.is_set()
        connecting.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if first:
                raise nats.errors.NoServersError from None
            raise
        yield

    async with asyncio.timeout(PATIENCE_S), opened(nats=server.address):
        monkeypatch.setattr(nats_hub, "connection", deaf)
        server.kill()
        await connecting.wait()


async def test_what_two_recognizers_publish_is_seen_once_at_either(server: NatsServer) -> None:
    address = server.address
    async with (
        opened(nats=address) as one,
        opened(nats=address) as two,
        one.hub.subscription((), ()) as at_one,
        two.hub.subscription((), ()) as at_two,
    ):
        await publish(one.hub, [1, 2, 3])
        await publish(two.hub, [2, 3, 4])  # the device resumed there
        seen = await read(at_one, 4)
        assert seqs(seen) == seqs(await read(at_two, 4)) == [1, 2, 3, 4]
        # A token of one leads on at the other, and at one that has only just come.
        async with two.hub.subscription((), (), seen[1].resume_token) as resumed:
            assert seqs(await read(resumed, 2)) == [3, 4]
        async with (
            opened(nats=address) as late,
            late.hub.subscription((), (), seen[0].resume_token) as resumed,
        ):
            await publish(one.hub, [5])
            assert seqs(await read(resumed, 4)) == [2, 3, 4, 5]


async def test_nats_killed_in_the_middle_and_every_result_is_seen_once(server: NatsServer) -> None:
    count, devices = 150, ("door", "gate.1", "gate-1")
    async with (
        asyncio.timeout(PATIENCE_S),
        opened(nats=server.address, nats_storage="file", publish_window=8) as one,
        opened(nats=server.address, nats_storage="file") as two,
        one.hub.subscription((), ()) as at_one,
        two.hub.subscription((), ()) as at_two,
    ):
        handed_in = [
            one.hub.publish(origin(device), result(seq))
            for seq in range(1, count + 1)
            for device in devices
        ]
        seen = await read(at_two, 30)
        server.kill()
        done_while_away = sum(future.done() for future in handed_in)
        assert done_while_away < len(handed_in)
        await eventually(lambda: one.sample("hub_connected") == 0)
        server.start()
        await asyncio.gather(*handed_in)
        seen += await read(at_two, count * len(devices) - 30)
        also = await read(at_one, count * len(devices))
        await publish(one.hub, [1], "last")  # nothing else came, or it would stand before this
        assert (await anext(at_two)).device_id == (await anext(at_one)).device_id == "last"
        assert one.sample("hub_unpublished") == 0
    for device in devices:
        of_device = [chunk.seq for chunk in seen if chunk.device_id == device]
        assert of_device == list(range(1, count + 1))
    assert [(c.device_id, c.seq) for c in also] == [(c.device_id, c.seq) for c in seen]
    assert seen[-1].dropped == 0


async def test_a_memory_that_is_lost_with_nats_is_said_to_those_who_watch(
    server: NatsServer,
) -> None:
    async with asyncio.timeout(PATIENCE_S), opened(nats=server.address) as hub:
        async with hub.hub.subscription((), ()) as subscription:
            await publish(hub.hub, [1, 2])
            token = (await read(subscription, 2))[1].resume_token
            server.kill()
            waits = hub.hub.publish(origin(), result(3))
            server.start()
            await waits
            with pytest.raises(ResumeLostError):
                await anext(subscription)
        with pytest.raises(ResumeLostError):
            async with hub.hub.subscription((), (), token):
                pass
        async with hub.hub.subscription((), ()) as again:
            await publish(hub.hub, [4])
            seen = await read(again, 1)
            while seen[-1].seq != 4:
                seen += await read(again, 1)
        assert seqs(seen) in ([4], [3, 4])


async def test_without_nats_nothing_is_acknowledged_and_nothing_is_lost(
    server: NatsServer, bundles: Path, bundle: Bundle
) -> None:
    """Credits stay out while NATS is away; the same chunks are settled once it is back."""
    settings = {"nats": server.address, "nats_storage": "file", "credits": 3}
    async with asyncio.timeout(PATIENCE_S), running_recognizer(bundles, **settings) as running:
        watch = running.stub.WatchRecognitions(pb.WatchRecognitionsRequest())
        await watch.initial_metadata()
        device = Device(running.stub)
        await device.open(hello(bundle, "front.door"))
        await device.send(1, payload(bundle))
        await device.acknowledged(1)

        server.kill()
        await eventually(lambda: running.sample("hub_connected") == 0)
        for seq in (2, 3, 4):
            await device.send(seq, payload(bundle))
        await eventually(lambda: running.sample("hub_unpublished") == 3)
        assert running.sample("chunks_total", status="result") == 1
        server.start()
        answers = await device.acknowledged(4)
        assert [item.seq for item in answers.results] == [2, 3, 4]
        assert answers.credits == 3
        assert await watched_seqs(watch, 4) == [1, 2, 3, 4]
        assert running.sample("hub_unpublished") == 0
        watch.cancel()


async def test_a_device_that_resumes_elsewhere_before_the_acknowledgement_is_seen_once(
    server: NatsServer, bundles: Path, bundle: Bundle
) -> None:
    settings = {"nats": server.address}
    async with (
        asyncio.timeout(PATIENCE_S),
        running_recognizer(bundles, **settings) as one,
        running_recognizer(bundles, **settings) as two,
    ):
        watch = two.stub.WatchRecognitions(pb.WatchRecognitionsRequest())
        await watch.initial_metadata()
        for running in (one, two):  # the device never read what `one` said to it
            device = Device(running.stub)
            await device.open(hello(bundle))
            await device.send(1, payload(bundle))
            await device.acknowledged(1)
        await device.send(2, payload(bundle))
        assert await watched_seqs(watch, 2) == [1, 2]
        watch.cancel()


async def test_a_message_that_is_none_of_ours_is_counted_and_passed_over(
    server: NatsServer,
) -> None:
    async with opened(nats=server.address) as hub, hub.hub.subscription((), ()) as subscription:
        client = await nats.connect(server.address)
        await client.jetstream().publish(subject("door", 4), b"\xff\xff\xff")
        await client.close()
        await publish(hub.hub, [1])
        assert seqs(await read(subscription, 1)) == [1]
        assert hub.sample("dropped_total", reason="hub_malformed") == 1


async def test_a_stream_that_is_deleted_is_made_again(server: NatsServer) -> None:
    async with asyncio.timeout(PATIENCE_S), opened(nats=server.address) as hub:
        await publish(hub.hub, [1])
        client = await nats.connect(server.address)
        await client.jetstream().delete_stream(STREAM)
        await client.close()
        await eventually(lambda: hub.sample("hub_connected") == 0)
        await eventually(lambda: hub.sample("hub_connected") == 1)
        async with hub.hub.subscription((), ()) as subscription:
            await publish(hub.hub, [2])
            assert seqs(await read(subscription, 1)) == [2]


async def test_bounds_that_differ_are_updated_and_another_storage_is_refused(
    server: NatsServer,
) -> None:
    async with opened(nats=server.address, retention_s=30):
        pass
    async with opened(nats=server.address, retention_s=20):
        client = await nats.connect(server.address)
        config = (await client.jetstream().stream_info(STREAM)).config
        await client.close()
        assert (config.max_age, config.duplicate_window) == (20, 20)
    for settings in ({"nats_storage": "file"}, {"nats_replicas": 3}):
        with pytest.raises(ConfigError, match="nats_storage"):
            async with opened(nats=server.address, **settings):
                pass


async def test_no_nats_at_the_start_is_an_error(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.kill()
    monkeypatch.setattr("cloud_recognizer.hub.opening.NATS_START_S", 0.5)
    with pytest.raises(UnavailableError, match="--nats"):
        async with opened(nats=server.address):
            pass


async def test_what_is_logged_of_the_settings_has_no_secret() -> None:
    nats = "nats://me:p@hunter2@a:4222,nats://token@b:4222"
    config = CloudConfig(Path(), nats=nats, nats_insecure=True)
    text = json.dumps(config.loggable(), default=str) + repr(config)
    assert "hunter2" not in text
    assert "token@" not in text
    assert "a:4222" in text


async def test_results_are_held_for_their_time_also_where_the_clock_is_an_hour_ahead_of_nats(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = partial(MessageAge, now=lambda: time.time() + 3600)
    monkeypatch.setattr("cloud_recognizer.hub.nats_hub.MessageAge", ahead)
    async with opened(nats=server.address) as hub:
        async with hub.hub.subscription((), ()) as subscription:
            await publish(hub.hub, [1, 2])
            (first,) = await read(subscription, 1)
        async with hub.hub.subscription((), (), first.resume_token) as subscription:
            await publish(hub.hub, [3])
            assert seqs(await read(subscription, 2)) == [2, 3]
