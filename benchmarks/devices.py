"""Devices that stream chunks as fast as their credits allow, or evenly, each on its connection."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import grpc

from mien.messages.upward import EncodedChunk, Hello, upward_to_proto
from mien.v1 import recognition_pb2 as pb
from mien.v1.recognition_pb2_grpc import RecognitionServiceStub

PATIENCE_S = 30.0
# A connection of its own for every device.
OPTIONS = (("grpc.use_local_subchannel_pool", 1),)


@dataclass
class Load:
    """What the devices saw. latencies_s: from a chunk or face written to its result read."""

    latencies_s: list[float] = field(default_factory=list)
    faces: int = 0
    rejected: int = 0


@dataclass(frozen=True)
class Pace:
    """When devices send: a chunk, or face, every pause_s, as fast as they may where that is 0."""

    devices: int
    seconds: float
    pause_s: float = 0.0

    def begins_s(self, number: int, now_s: float) -> float:
        """When a device begins: evenly paced ones do not all send at the same moment."""
        return now_s + self.pause_s * number / self.devices


class Start:
    """Lets all devices begin once each has its stream: how they connect is not what is measured."""

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self._barrier = asyncio.Barrier(pace.devices)
        self.at_s = 0.0

    async def begin_s(self, number: int) -> float:
        """Wait for the others. Returns when this device begins."""
        if await self._barrier.wait() == 0:
            self.at_s = now()
        await self._barrier.wait()
        return self.pace.begins_s(number, self.at_s)


def device_name(number: int) -> str:
    """The id of one of the devices."""
    return f"device{number}"


Dial = Callable[[str, str], grpc.aio.Channel]
"""Makes a connection of its own to an address for a device's id."""


def in_plain_text(address: str, _device_id: str) -> grpc.aio.Channel:
    """A Dial."""
    return grpc.aio.insecure_channel(address, OPTIONS)


async def drive(
    address: str,
    bundle_id: str,
    payloads: Sequence[bytes],
    pace: Pace,
    dial: Dial = in_plain_text,
) -> tuple[Load, float]:
    """Let all devices send. Returns what they saw, and the seconds until all had their answers."""
    load, epoch, start = Load(), time.time_ns(), Start(pace)
    async with asyncio.TaskGroup() as group:
        for number in range(pace.devices):
            hello = Hello(device_name(number), epoch, 0, (bundle_id,), "a benchmark", "none")
            group.create_task(stream(address, hello, payloads, load, start, number, dial))
    return load, now() - start.at_s


async def stream(
    address: str,
    hello: Hello,
    payloads: Sequence[bytes],
    load: Load,
    start: Start,
    number: int = 0,
    dial: Dial = in_plain_text,
) -> None:
    """One device: its connection, its stream, and chunks until the time is over."""
    pace = start.pace
    async with dial(address, hello.device_id) as channel:
        call = RecognitionServiceStub(channel).StreamFaces(timeout=pace.seconds + 2 * PATIENCE_S)
        await call.write(upward_to_proto(replace(hello, takes_settled=True)))
        welcome = (await call.read()).welcome
        credits = asyncio.Semaphore(welcome.credits)  # noqa: A001  # the contract's word
        sent_s: dict[int, float] = {}
        reader = asyncio.create_task(_read(call, credits, sent_s, load))
        begin_s = await start.begin_s(number)
        end_s = begin_s + pace.seconds
        seq, next_s = 0, begin_s
        while max(now(), next_s) < end_s:
            await asyncio.sleep(max(next_s - now(), 0))
            await credits.acquire()
            seq += 1
            sent_s[seq] = now()
            chunk = EncodedChunk(seq, payloads[seq % len(payloads)])
            await call.write(upward_to_proto(chunk))
            next_s += pace.pause_s
        await call.done_writing()
        await reader


async def _read(
    call: Any,
    credits: asyncio.Semaphore,  # noqa: A002
    sent_s: dict[int, float],
    load: Load,
) -> None:
    while isinstance(response := await call.read(), pb.StreamFacesResponse):
        for result in response.settled.results:
            latency_s = now() - sent_s.pop(result.seq)
            if result.status == pb.ITEM_STATUS_RESULT:
                load.latencies_s.append(latency_s)
                load.faces += len(result.recognitions)
            else:
                load.rejected += 1
        for _ in range(response.settled.credits):
            credits.release()


def now() -> float:
    """Seconds of a clock that only runs forward."""
    return time.perf_counter()
