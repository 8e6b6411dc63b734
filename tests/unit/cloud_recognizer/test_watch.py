"""Those who watch: what they get, and what they lose when they are slow."""

from pathlib import Path

import grpc

from mien.bundle import Bundle
from mien.messages import WatchedRecognition
from mien.v1 import recognition_pb2 as pb
from tests.support.recognizer import (
    RPC_TIMEOUT_S,
    Device,
    Running,
    hello,
    payload,
    running_recognizer,
)

Watch = grpc.aio.UnaryStreamCall[pb.WatchRecognitionsRequest, pb.WatchRecognitionsResponse]


async def watch(running: Running, *devices: str, tracks: tuple[int, ...] = ()) -> Watch:
    """Watch, from when this returns on."""
    call: Watch = running.stub.WatchRecognitions(
        pb.WatchRecognitionsRequest(device_ids=devices, track_ids=tracks), timeout=RPC_TIMEOUT_S
    )
    await call.initial_metadata()
    return call


async def read(call: Watch, count: int) -> list[WatchedRecognition]:
    watched = []
    for _ in range(count):
        response = await call.read()
        assert isinstance(response, pb.WatchRecognitionsResponse)
        watched.append(WatchedRecognition.from_proto(response))
    return watched


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
        watched = await read(call, 5)
    assert [(seen.seq, seen.recognition.index) for seen in watched] == [
        (1, 0),
        (1, 1),
        (1, 2),
        (2, 0),
        (2, 1),
    ]
    for seen in watched:
        assert (seen.device_id, seen.epoch, seen.dropped) == ("door", 4, 0)
        assert seen.epoch_start_unix_ms == hello(bundle).epoch_start_unix_ms
        assert seen.bundle_id == bundle.bundle_id
        assert seen.expressions == bundle.manifest.expressions
        assert seen.recognition.expression in seen.expressions


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
            return [(item.device_id, item.recognition.track_id) for item in watched]

        assert await seen(door, 2) == [("door", 9), ("door", 7)]
        assert await seen(track_9, 1) == [("door", 9)]
        assert await seen(both, 2) == [("gate", 7), ("door", 7)]
        assert await seen(attic, 1) == [("attic", 1)]


async def test_a_slow_watcher_loses_the_oldest_and_is_told_how_many(
    bundles: Path, bundle: Bundle
) -> None:
    chunks = [payload(bundle, faces=64) for _ in range(30)]
    async with running_recognizer(bundles, watcher_queue=50, credits=100) as running:
        slow = await watch(running)  # reads nothing while 1,920 recognitions come
        quick = await watch(running, "gate")
        await stream(running, bundle, "door", chunks)
        await stream(running, bundle, "gate", [payload(bundle, faces=1)])
        assert (await read(quick, 1))[0].dropped == 0

        watched = await read(slow, 1)
        while watched[-1].device_id != "gate":
            watched += await read(slow, 1)
        dropped = running.sample("dropped_total", reason="watcher_slow")
    positions = [(seen.seq, seen.recognition.index) for seen in watched[:-1]]
    assert positions == sorted(positions)
    assert watched[-1].dropped == dropped > 0
    assert len(watched) + dropped == 1921


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
