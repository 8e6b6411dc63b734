"""Those who watch: what they get, and what they lose when they are slow."""

from pathlib import Path

import grpc

from cloud_recognizer.hub import Hub, Origin
from cloud_recognizer.metrics import Metrics
from mien.bitstream import Box, EncodedFace
from mien.bundle import Bundle
from mien.messages import ChunkResult, ItemStatus, Recognition, WatchedChunk
from mien.v1 import recognition_pb2 as pb
from tests.support.recognizer import (
    RPC_TIMEOUT_S,
    Device,
    Running,
    hello,
    payload,
    running_recognizer,
)
from tests.support.tiny_bundle import tiny_symbols

Watch = grpc.aio.UnaryStreamCall[pb.WatchRecognitionsRequest, pb.WatchRecognitionsResponse]


async def watch(running: Running, *devices: str, tracks: tuple[int, ...] = ()) -> Watch:
    """Watch, from when this returns on."""
    call: Watch = running.stub.WatchRecognitions(
        pb.WatchRecognitionsRequest(device_ids=devices, track_ids=tracks), timeout=RPC_TIMEOUT_S
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
    metrics = Metrics()
    hub = Hub(metrics, max_watchers=1, capacity=100)
    origin = Origin("door", 4, 0, "b" * 64, ("neutral",))
    with hub.subscription((), ()) as subscription:
        for seq, faces in enumerate((40, 40, 20, 0, 41, 64), 1):
            face = Recognition(0, 0, 7, Box(0, 0, 1, 1), "neutral", 1.0, (1.0,))
            hub.publish(origin, ChunkResult(seq, ItemStatus.RESULT, "b" * 64, (face,) * faces))
        hub.close()
        watched = [chunk async for chunk in subscription]
    assert [(chunk.seq, len(chunk.recognitions), chunk.dropped) for chunk in watched] == [
        (6, 64, 141)
    ]
    labels = {"reason": "watcher_slow"}
    assert metrics.registry.get_sample_value("mien_cloud_dropped_total", labels) == 141


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
