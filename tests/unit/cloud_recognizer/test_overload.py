"""More than can be computed: who waits for whom, what is too late, and how credits answer."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import pytest

from edge_encoder.refusal import Refusal
from mien.bundle import Bundle
from mien.messages.downward import Acknowledgement, Credits, Downward, Welcome
from mien.messages.results import ChunkResult, ItemStatus
from mien.messages.upward import upward_to_proto
from mien.v1 import recognition_pb2 as pb
from tests.support.gate import Gate
from tests.support.recognizer import (
    Device,
    Running,
    eventually,
    hello,
    payload,
    running_recognizer,
)

SLOW = 4
FLOOD_CHUNKS = 64
BATCH_FACES = 16
# The batch that is being computed is not counted. Then: one turn of the flood, 8 faces, and what
# the slow ones have waiting, 3 chunks of 4 faces each, is 56 faces: four batches of 16.
FEW_BATCHES = 4


@contextlib.asynccontextmanager
async def gated(bundles: Path, gate: Gate, **settings: Any) -> AsyncIterator[Running]:
    defaults = {"workers": 1, "max_age_s": 60.0, "max_batch_wait_s": 0.0}
    async with running_recognizer(bundles, gate.load, **(defaults | settings)) as running:
        try:
            yield running
        finally:
            gate.open()


async def hold(running: Running, gate: Gate, bundle: Bundle) -> Device:
    """A device whose chunk is the batch that the gate holds."""
    device = Device(running.stub)
    await device.open(hello(bundle, "holder"))
    gate.close()
    held = len(gate.batches)
    await device.send(1, payload(bundle, faces=1))
    await eventually(lambda: len(gate.batches) > held)
    return device


async def test_a_flooding_device_keeps_slow_ones_waiting_for_few_batches(
    bundles: Path, bundle: Bundle
) -> None:
    gate = Gate()
    flood_chunk = payload(bundle, faces=8, seed=1000)
    async with gated(
        bundles, gate, credits=FLOOD_CHUNKS, max_batch_faces=BATCH_FACES, max_batch_wait_s=0.5
    ) as running:
        await hold(running, gate, bundle)
        flood = Device(running.stub)
        assert (await flood.open(hello(bundle, "flood"))).credits == FLOOD_CHUNKS
        for seq in range(1, FLOOD_CHUNKS + 1):
            await flood.send(seq, flood_chunk)
        await eventually(lambda: running.sample("queue_chunks") == FLOOD_CHUNKS)
        slow = [Device(running.stub) for _ in range(SLOW)]
        sent = []
        for number, device in enumerate(slow):
            await device.open(hello(bundle, f"slow{number}"))
            for seq in (1, 2, 3):
                sent.append(payload(bundle, faces=4, seed=10 * number + seq))
                await device.send(seq, sent[-1])
        await eventually(lambda: running.sample("queue_chunks") == FLOOD_CHUNKS + len(sent))
        before = len(gate.batches)
        gate.open()
        for device in slow:
            assert len((await device.close()).results) == 3
        assert len((await flood.close()).results) == FLOOD_CHUNKS
    assert max(gate.batch_of(chunk) for chunk in sent) < before + FEW_BATCHES
    # The flood waited for its turns, all the batches that first in, first out would have meant.
    assert len(gate.batches) > before + FLOOD_CHUNKS * 8 // BATCH_FACES


async def test_a_device_of_many_epochs_gets_one_devices_places_and_turns(
    bundles: Path, bundle: Bundle
) -> None:
    gate = Gate()
    flood_chunk = payload(bundle, faces=8, seed=1000)
    async with gated(
        bundles, gate, max_streams=8, max_batch_faces=BATCH_FACES, max_batch_wait_s=0.5
    ) as running:
        await hold(running, gate, bundle)
        flood = []
        for epoch in range(1, 33):
            device = Device(running.stub)
            await device.call.write(upward_to_proto(hello(bundle, "flood", epoch)))
            if epoch <= 4:
                assert isinstance(await device.read(), Welcome)
                flood.append(device)
                for seq in range(1, 9):
                    await device.send(seq, flood_chunk)
                continue
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await device.read()
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert Refusal.of(refused.value) == Refusal("share_taken", 1.0)
        await eventually(lambda: running.sample("queue_chunks") == 32)
        assert running.sample("turned_away_total", bound="device_streams") == 28
        # Beside it the others have their places, and wait for a turn of one device.
        slow, sent = [Device(running.stub) for _ in range(3)], []
        for number, device in enumerate(slow):
            await device.open(hello(bundle, f"slow{number}"))
            for seq in (1, 2, 3):
                sent.append(payload(bundle, faces=4, seed=10 * number + seq))
                await device.send(seq, sent[-1])
        await eventually(lambda: running.sample("queue_chunks") == 32 + len(sent))
        before = len(gate.batches)
        gate.open()
        for device in (*slow, *flood):
            assert (await device.close()).results
    # Three of 12 faces, and one turn of the flood in each round of theirs.
    assert max(gate.batch_of(chunk) for chunk in sent) < before + FEW_BATCHES


async def test_a_fleet_that_catches_up_leaves_room_for_live_streams(
    bundles: Path, bundle: Bundle
) -> None:
    async with running_recognizer(bundles, max_streams=4) as running:
        live, late = [], []
        for name in ("door", "gate"):
            for epoch, streams in ((2, live), (1, late)):
                streams.append(Device(running.stub))
                await streams[-1].open(hello(bundle, name, epoch))
        for name in ("yard", "hall"):
            live.append(Device(running.stub))
            await live[-1].open(hello(bundle, name, 2))
        for device in late:
            assert (await device.status())[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
        for device in live:
            await device.send(1, payload(bundle, faces=1))
            assert len((await device.close()).results) == 1
        assert running.sample("turned_away_total", bound="gave_way") == 2


async def test_calls_of_one_connection_take_turns_with_devices_as_one_sender(
    bundles: Path, bundle: Bundle
) -> None:
    gate = Gate()
    async with gated(bundles, gate, max_batch_faces=BATCH_FACES, max_batch_wait_s=0.5) as running:
        await hold(running, gate, bundle)
        chunk = payload(bundle, faces=8, seed=1000)
        calls = [
            asyncio.ensure_future(
                running.stub.Recognize(pb.RecognizeRequest(payloads=[chunk] * 32))
            )
            for _ in range(4)
        ]
        await eventually(lambda: running.sample("queue_chunks") == 128)
        device = Device(running.stub)
        await device.open(hello(bundle))
        sent = payload(bundle, faces=8, seed=1)
        await device.send(1, sent)
        await eventually(lambda: running.sample("queue_chunks") == 129)
        before = len(gate.batches)
        gate.open()
        assert len((await device.close()).results) == 1
        for call in calls:
            assert len((await call).results) == 32
    assert gate.batch_of(sent) == before


def rejected(running: Running) -> float:
    return running.sample("rejected_chunks_total", code="deadline_exceeded")


@pytest.mark.parametrize(
    ("max_age_s", "max_latency_ms"), [(60.0, 20), (0.02, 0), (0.02, 30_000), (0.02, 3_600_000)]
)
async def test_a_chunk_that_is_too_late_is_rejected_and_acknowledged_and_not_computed(
    bundles: Path, bundle: Bundle, max_age_s: float, max_latency_ms: int
) -> None:
    gate = Gate()
    async with gated(bundles, gate, max_age_s=max_age_s, credits=64) as running:
        holder = Device(running.stub)
        await holder.open(hello(bundle, "holder"))
        for seq in range(1, 100):  # on a busy machine the first may be too late itself
            await holder.send(seq, payload(bundle, faces=1))
            await eventually(lambda seq=seq: gate.batches or rejected(running) == seq)
            if gate.batches:
                break
        device = Device(running.stub)
        await device.open(replace(hello(bundle), max_latency_ms=max_latency_ms))
        late = [payload(bundle, seed=seed) for seed in (1, 2)]
        for seq, chunk in enumerate(late, 1):
            await device.send(seq, chunk)
        await eventually(lambda: running.sample("queue_chunks") == len(late))
        dropped = running.sample("dropped_total", reason="too_late")
        await asyncio.sleep(0.03)
        gate.open()
        answers: list[Downward | None] = []
        while Acknowledgement(len(late)) not in answers:
            answers.append(await device.read())
        assert running.sample("dropped_total", reason="too_late") == dropped + len(late)
        assert running.sample("late_seconds_count") == dropped + len(late)
        assert rejected(running) == dropped + len(late)
        results = [message for message in answers if isinstance(message, ChunkResult)]
        assert [result.seq for result in results] == [1, 2]
        for result in results:
            assert result.status is ItemStatus.REJECTED
            assert result.error is not None
            assert result.error.code == "deadline_exceeded"
        again = Device(running.stub)  # the device need not send them again
        device.call.cancel()
        assert (await again.open(hello(bundle))).acknowledged_seq == len(late)
    assert not any(chunk in batch for batch in gate.batches for chunk in late)


async def test_a_call_past_its_own_deadline_is_not_computed(bundles: Path, bundle: Bundle) -> None:
    gate = Gate()
    late = payload(bundle, seed=1)
    async with gated(bundles, gate) as running:
        holder = await hold(running, gate, bundle)
        call = running.stub.Recognize(pb.RecognizeRequest(payloads=[late] * 3), timeout=1.0)
        await eventually(lambda: running.sample("queue_chunks") == 3)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        # The server's own deadline is a little later than the client's.
        await eventually(lambda: running.sample("queue_chunks") == 0)
        gate.open()
        assert len((await holder.close()).results) == 1
        reasons = ("too_late", "stream_gone")
        assert sum(running.sample("dropped_total", reason=reason) for reason in reasons) == 3
    assert not any(late in batch for batch in gate.batches)


async def spend_all(
    device: Device, bundle: Bundle, running: Running, seq: int, have: int, theirs: int = 0
) -> int:
    """Send a chunk for each credit, from `seq` on; the credits once all are settled.

    theirs: credits that other devices hold meanwhile.
    """
    last = seq + have - 1
    for number in range(seq, last + 1):
        await device.send(number, payload(bundle, faces=1))
    granted, acknowledged = 0, 0
    # The last grant is made together with the last acknowledgement, and sent after it.
    while acknowledged < last or granted < running.sample("credits") - theirs:
        message = await device.read()
        if isinstance(message, Acknowledgement):
            acknowledged = message.seq
        granted += message.chunks if isinstance(message, Credits) else 0
    return granted


async def test_credits_shrink_when_streams_come_and_grow_back_when_they_leave(
    bundles: Path, bundle: Bundle
) -> None:
    room = {"max_streams": 4, "credits": 8, "max_recognize_chunks": 512, "queue_chunks": 512 + 12}
    async with running_recognizer(bundles, max_batch_wait_s=0.0, **room) as running:
        device = Device(running.stub)
        have = (await device.open(hello(bundle))).credits
        assert have == 8
        others = [Device(running.stub) for _ in range(3)]
        theirs = [
            (await other.open(hello(bundle, f"other{number}"))).credits
            for number, other in enumerate(others)
        ]
        # What was promised to the first is not taken back; it is not given again.
        assert theirs == [2, 1, 1]
        have = await spend_all(device, bundle, running, 1, have, sum(theirs))
        assert have == 3
        for other in others:
            other.call.cancel()
        await eventually(lambda: running.sample("streams") == 1)
        seq, seen = 9, [have]
        while have < 8:
            seq, have = seq + have, await spend_all(device, bundle, running, seq, have)
            seen.append(have)
    assert all(before <= after <= 2 * before for before, after in pairwise(seen))


async def test_credits_shrink_while_chunks_take_long_and_grow_back_afterwards(
    bundles: Path, bundle: Bundle
) -> None:
    gate = Gate()
    # A quarter of max_age_s is how long chunks may take before the window halves.
    async with gated(bundles, gate, max_age_s=4.0, credits=8) as running:
        device = await hold(running, gate, bundle)
        for seq in range(2, 9):
            await device.send(seq, payload(bundle, faces=1))
        await eventually(lambda: running.sample("queue_chunks") == 7)
        assert running.sample("credit_window") == 8
        await asyncio.sleep(1.1)
        gate.open()
        messages: list[Downward | None] = []
        while Acknowledgement(8) not in messages:
            messages.append(await device.read())
        have = int(running.sample("credits"))
        assert 1 <= have <= 4  # of eight that were spent
        granted = sum(message.chunks for message in messages if isinstance(message, Credits))
        while granted < have:
            message = await device.read()
            granted += message.chunks if isinstance(message, Credits) else 0
        seq = 9
        while have < 8:
            seq, have = seq + have, await spend_all(device, bundle, running, seq, have)
        assert running.sample("credit_window") > 7
