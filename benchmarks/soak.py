"""A recognizer at full load for a long time, while streams open, are cancelled and die.

Of all devices a part sends all the time. The others live for a moment each: one ends its stream as
it should, the next cancels it with chunks under way, the third cuts its connection. Every one is
another device, so what the recognizer remembers of them is bounded or grows.
"""

import argparse
import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import Sequence
from typing import Any

import grpc

from benchmarks.devices import OPTIONS, Load, Pace, Start, now, stream
from benchmarks.processes import resident_bytes
from benchmarks.services import Served
from mien.messages.upward import EncodedChunk, Hello, upward_to_proto
from mien.v1.recognition_pb2_grpc import RecognitionServiceStub

PASSING = 8
"""Devices at a time that come and go, beside those that stay."""
FIRST_S = 60.0
EVERY_S = 5.0
STAY_S = 20.0


def soak(
    options: argparse.Namespace, served: Served, bundle_id: str, payloads: Sequence[bytes]
) -> dict[str, Any]:
    """Memory after the first minute and at the end, as medians of what was seen about then."""
    seconds = 60 * options.soak_minutes
    if seconds <= FIRST_S + EVERY_S:
        raise SystemExit("--soak_minutes must be more than one: the first is not looked at")
    return asyncio.run(_Soak(options.streams, served, bundle_id, payloads).run(seconds))


class _Soak:
    def __init__(
        self, streams: int, served: Served, bundle_id: str, payloads: Sequence[bytes]
    ) -> None:
        self._streams = streams
        self._served = served
        self._bundle_id = bundle_id
        self._payloads = payloads
        self._numbers = itertools.count()
        self._load = Load()
        self._ended = dict.fromkeys(("finished", "cancelled", "died"), 0)

    async def run(self, seconds: float) -> dict[str, Any]:
        started_s = now()
        end_s = started_s + seconds
        async with asyncio.TaskGroup() as group:
            for _ in range(max(self._streams - PASSING, 1)):
                group.create_task(self._staying(end_s))
            for _ in range(PASSING):
                group.create_task(self._passing(end_s))
            memory = group.create_task(self._watch(started_s, end_s))
        return self._figures(memory.result(), now() - started_s)

    def _hello(self) -> Hello:
        name = f"device{next(self._numbers)}"
        return Hello(name, time.time_ns(), 0, (self._bundle_id,), "a benchmark", "none")

    async def _staying(self, end_s: float) -> None:
        """Streams of some length, one after the other: none outlives its own deadline."""
        while (left_s := end_s - now()) > 0:
            start = Start(Pace(1, min(STAY_S, left_s)))
            await stream(self._served.address, self._hello(), self._payloads, self._load, start)

    async def _passing(self, end_s: float) -> None:
        ways = itertools.cycle(self._ended)
        while now() < end_s:
            way = next(ways)
            # What a stream that is cut says to who cuts it is of no use.
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await self._pass(way)
            self._ended[way] += 1

    async def _pass(self, way: str) -> None:
        async with grpc.aio.insecure_channel(self._served.address, OPTIONS) as channel:
            call = RecognitionServiceStub(channel).StreamFaces(timeout=STAY_S)
            await call.write(upward_to_proto(self._hello()))
            welcome = (await call.read()).welcome
            for seq in range(1, welcome.credits + 1):
                payload = self._payloads[seq % len(self._payloads)]
                await call.write(upward_to_proto(EncodedChunk(seq, payload)))
            # Some answers are on their way, others are not there yet.
            await asyncio.sleep(random.uniform(0, 0.5))  # noqa: S311
            if way == "finished":
                await call.done_writing()
                while await call.read():
                    pass
            elif way == "cancelled":
                call.cancel()
            # else the channel is closed under it

    async def _watch(self, started_s: float, end_s: float) -> list[tuple[float, int]]:
        seen: list[tuple[float, int]] = []
        while (left_s := end_s - now()) > 0:
            await asyncio.sleep(min(EVERY_S, left_s))
            seen.append((now() - started_s, resident_bytes(self._served.pid)))
        return seen

    def _figures(self, memory: list[tuple[float, int]], took_s: float) -> dict[str, Any]:
        later = [size for at_s, size in memory if at_s >= FIRST_S]
        few = max(len(later) // 8, 1)
        first, last = sorted(later[:few])[few // 2], sorted(later[-few:])[few // 2]
        return {
            "soak_minutes": took_s / 60,
            "recognitions_per_s": self._load.faces / took_s,
            "rejected_chunks": self._load.rejected,
            **{f"streams_{way}": number for way, number in self._ended.items()},
            "devices": next(self._numbers),
            "memory_after_first_minute_mb": first / 1e6,
            "memory_at_end_mb": last / 1e6,
            "memory_most_mb": max(later) / 1e6,
            "memory_growth_percent": 100 * (last / first - 1),
        }
