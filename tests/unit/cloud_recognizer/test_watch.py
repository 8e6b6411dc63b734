"""Those who watch: what they get, and what they lose when they are slow."""

from pathlib import Path

import grpc

from mien.bitstream import Box, EncodedFace
from mien.bundle import Bundle
from mien.messages.watched import WatchedChunk
from mien.v1 import recognition_pb2 as pb
from tests.support.hubs import opened, origin, result
from tests.support.raw_http2 import raw_connection
from tests.support.recognizer import (
    RPC_TIMEOUT_S,
    Device,
    Running,
    eventually,
    hello,
    payload,
    running_recognizer,
)
from tests.support.tiny_bundle import tiny_symbols

Watch = grpc.aio.UnaryStreamCall[pb.WatchRecognitionsRequest, pb.WatchRecognitionsResponse]


async def watch(
    running: Running, *devices: str, tracks: tuple[int, ...] = (), token: bytes = b""
) -> Watch:
    """Watch, from when this returns on."""
    call: Watch = running.stub.WatchRecognitions(
        pb.WatchRecognitionsRequest(device_ids=devices, track_ids=tracks, resume_token=token),
        timeout=RPC_TIMEOUT_S,
    )
    await call.initial_metadata()
    return call


async def read(call: Watch, count: int) -> list[WatchedChunk]:
    watched = []
    for _ in range(count):
        response = await call.read()
        assert isinstance(response, pb.WatchRecognitionsResponse)
        watched.append(WatchedChunk.from_proto(response))
    return watched


def positions(watched: list[WatchedChunk]) -> list[tuple[int, int]]:
    return [(seen.seq, face.index) for seen in watched for face in seen.recognitions]


async def stream(
    running: Running, bundle: Bundle, device_id: str, chunks: list[bytes], epoch: int = 4
) -> None:
    device = Device(running.stub)
    await device.open(hello(bundle, device_id, epoch))
    for seq, chunk in enumerate(chunks, 1):
        await device.send(seq, chunk)
    await device.close()


async def test_a_watcher_sees_every_recognition_and_where_it_comes_from(
    bundles: Path, bundle: Bundle
) -> None:
    async with running_recognizer(bundles) as running:
        call = await watch(running)
        await stream(running, bundle, "door", [payload(bundle, faces=3), payload(bundle, faces=2)])
        watched = await read(call, 2)
    assert positions(watched) == [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1)]
    for seen in watched:
        assert (seen.device_id, seen.epoch, seen.dropped) == ("door", 4, 0)
        assert seen.epoch_start_unix_ms == hello(bundle).epoch_start_unix_ms
        assert seen.bundle_id == bundle.bundle_id
        assert seen.expressions == bundle.manifest.expressions
        assert all(face.expression in seen.expressions for face in seen.recognitions)


async def test_filters_by_device_and_by_track(bundles: Path, bundle: Bundle) -> None:
    async with running_recognizer(bundles) as running:
        door = await watch(running, "door")
        track_9 = await watch(running, tracks=(9,))
        both = await watch(running, "door", "gate", tracks=(7,))
        attic = await watch(running, "attic")
        sent = [("gate", 7), ("hall", 7), ("door", 9), ("door", 7), ("attic", 1)]
        for epoch, (device_id, track_id) in enumerate(sent):
            chunk = payload(bundle, faces=1, track_id=track_id)
            await stream(running, bundle, device_id, [chunk], epoch)

        async def seen(call: Watch, count: int) -> list[tuple[str, int]]:
            watched = await read(call, count)
            return [
                (item.device_id, face.track_id) for item in watched for face in item.recognitions
            ]

        assert await seen(door, 2) == [("door", 9), ("door", 7)]
        assert await seen(track_9, 1) == [("door", 9)]
        assert await seen(both, 2) == [("gate", 7), ("door", 7)]
        assert await seen(attic, 1) == [("attic", 1)]


async def test_of_a_chunk_with_several_tracks_a_watcher_gets_those_it_asked_for(
    bundles: Path, bundle: Bundle
) -> None:
    tracks = (7, 8, 9, 7)
    faces = [
        EncodedFace(40 * index, track_id, Box(10, 20, 60, 64), symbols)
        for index, (track_id, symbols) in enumerate(zip(tracks, tiny_symbols(4), strict=True))
    ]
    chunk = bundle.codec().encode(faces)
    async with running_recognizer(bundles) as running:
        call = await watch(running, tracks=(7, 9))
        await stream(running, bundle, "door", [payload(bundle, track_id=8), chunk])
        assert positions(await read(call, 1)) == [(2, 0), (2, 2), (2, 3)]


async def test_a_slow_watcher_loses_the_oldest_and_is_told_how_many(
    bundles: Path, bundle: Bundle
) -> None:
    chunks = [payload(bundle, faces=64) for _ in range(30)]
    async with running_recognizer(bundles, watcher_queue=150, credits=100) as running:
        slow = await watch(running)  # reads nothing while 1,920 recognitions come
        quick = await watch(running, "gate")
        await stream(running, bundle, "door", chunks)
        await stream(running, bundle, "gate", [payload(bundle, faces=1)])
        assert (await read(quick, 1))[0].dropped == 0

        watched = await read(slow, 1)
        while watched[-1].device_id != "gate":
            watched += await read(slow, 1)
        dropped = running.sample("dropped_total", reason="watcher_slow")
    seen = positions(watched[:-1])
    assert seen == sorted(seen)
    assert [len(chunk.recognitions) for chunk in watched[:-1]] == [64] * (len(watched) - 1)
    # 150 have room for two whole chunks and the gate's face.
    assert [chunk.seq for chunk in watched[-3:-1]] == [29, 30]
    assert watched[-1].dropped == dropped > 0
    assert len(seen) + 1 + dropped == 1921


async def test_what_waits_for_a_watcher_is_bounded_by_recognitions_and_lost_by_chunks() -> None:
    async with opened(watcher_queue=100) as hub, hub.hub.subscription((), ()) as subscription:
        for seq, faces in enumerate((40, 40, 20, 0, 41, 64), 1):
            await hub.hub.publish(origin(), result(seq, (7,) * faces))
        hub.hub.close()
        watched = [chunk async for chunk in subscription]
    assert [(chunk.seq, len(chunk.recognitions), chunk.dropped) for chunk in watched] == [
        (6, 64, 141)
    ]
    assert hub.sample("dropped_total", reason="watcher_slow") == 141


async def test_a_watcher_resumes_with_the_token_of_its_last_response(
    bundles: Path, bundle: Bundle
) -> None:
    async with running_recognizer(bundles, retention_s=600.0) as running:
        first = await watch(running)
        await stream(running, bundle, "door", [payload(bundle)] * 4)
        token = (await read(first, 2))[-1].resume_token
        first.cancel()
        second = await watch(running, "door", token=token)
        assert [seen.seq for seen in await read(second, 2)] == [3, 4]


async def test_by_default_nothing_is_held_and_what_was_missed_is_said_to_be_lost(
    bundles: Path, bundle: Bundle
) -> None:
    async with running_recognizer(bundles) as running:
        first = await watch(running)
        await stream(running, bundle, "door", [payload(bundle)] * 2)
        before, last = await read(first, 2)
        resumed = await watch(running, token=last.resume_token)  # it has missed nothing
        late = running.stub.WatchRecognitions(
            pb.WatchRecognitionsRequest(resume_token=before.resume_token)
        )
        assert await late.code() is grpc.StatusCode.OUT_OF_RANGE
        await stream(running, bundle, "gate", [payload(bundle)])
        assert (await read(resumed, 1))[0].device_id == "gate"
    assert running.sample("rpc_errors_total", code="resume_lost") == 1


async def test_a_token_of_a_server_that_is_gone_is_said_to_be_lost(
    bundles: Path, bundle: Bundle
) -> None:
    async with running_recognizer(bundles, retention_s=600.0) as running:
        call = await watch(running)
        await stream(running, bundle, "door", [payload(bundle)])
        token = (await read(call, 1))[0].resume_token
    async with running_recognizer(bundles, retention_s=600.0) as running:
        again = running.stub.WatchRecognitions(pb.WatchRecognitionsRequest(resume_token=token))
        assert await again.code() is grpc.StatusCode.OUT_OF_RANGE


async def test_watchers_beyond_the_limit_are_refused(bundles: Path) -> None:
    async with running_recognizer(bundles, max_watchers=1) as running:
        await watch(running)
        second = running.stub.WatchRecognitions(pb.WatchRecognitionsRequest())
        assert await second.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_filter_of_more_than_1024_devices_is_refused(bundles: Path) -> None:
    async with running_recognizer(bundles) as running:
        request = pb.WatchRecognitionsRequest(device_ids=[str(i) for i in range(1025)])
        call = running.stub.WatchRecognitions(request)
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_watcher_that_leaves_is_forgotten(bundles: Path, bundle: Bundle) -> None:
    async with running_recognizer(bundles, max_watchers=1) as running:
        first = await watch(running)
        first.cancel()
        await stream(running, bundle, "door", [payload(bundle)])
        second = await watch(running)
        await stream(running, bundle, "gate", [payload(bundle, faces=1)])
        assert (await read(second, 1))[0].device_id == "gate"


async def test_a_watcher_that_reads_nothing_gives_its_place_back(
    bundles: Path, bundle: Bundle
) -> None:
    async with (
        running_recognizer(bundles, max_watchers=1, write_timeout_s=0.1) as running,
        raw_connection(running.serving.port, initial_window=0) as raw,
    ):
        await raw.message(await raw.call("/mien.v1.RecognitionService/WatchRecognitions"), b"")
        await eventually(lambda: running.sample("watchers") == 1)
        await stream(running, bundle, "door", [payload(bundle)])
        await eventually(lambda: running.sample("watchers") == 0)
        assert running.sample("rpc_errors_total", code="unavailable") == 1
        await watch(running)
