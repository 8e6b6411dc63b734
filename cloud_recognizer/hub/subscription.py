"""One watcher: what it has missed, out of the ring, and then what comes, out of a bounded queue."""

import asyncio
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final

from cloud_recognizer.hub.resume_token import ResumeToken
from cloud_recognizer.hub.ring import Held, Ring
from cloud_recognizer.metrics import WATCHER_SLOW, Metrics
from mien.errors import MienError
from mien.messages.watched import WatchedChunk
from mien.v1.recognition_pb2 import WatchRecognitionsResponse

# Messages of the ring that are looked at before other tasks get their turn.
_SLICE: Final = 64


@dataclass(frozen=True, slots=True)
class _Waiting:
    sequence: int
    chunk: WatchedChunk


class Subscription:
    """One watcher's queue, an async iterator that ends when the hub closes and all is read.

    It holds chunks and is bounded by the recognitions in them: `capacity`, or one chunk where
    that has more. While it reads what the ring holds after position `after`, nothing is queued
    beside it, for the ring gets everything too.
    """

    def __init__(
        self,
        device_ids: Collection[str],
        track_ids: Collection[int],
        capacity: int,
        metrics: Metrics,
        *,
        run: int = 0,
        ring: Ring | None = None,
        after: int = 0,
    ) -> None:
        self._device_ids = frozenset(device_ids)
        self._track_ids = frozenset(track_ids)
        self._metrics = metrics
        self._capacity = capacity
        self._run = run
        self._ring = ring  # None once everything in it is read
        self._after = after
        self._queue: deque[_Waiting] = deque()
        self._waiting = 0  # recognitions in the queue
        self._dropped = 0  # recognitions too
        self._closed = False
        self._error: MienError | None = None
        self._wake = asyncio.Event()

    def offer(self, sequence: int, chunk: WatchedChunk) -> None:
        """Queue what this watcher asked for; when full, the oldest chunks go, they are stalest."""
        if self._ring is not None or self._closed:
            self._wake.set()
            return
        asked = self._asked_for(chunk)
        if asked is None:
            return
        while self._queue and not self._has_room_for(asked):
            self._lose(self._take().chunk)
        self._put(sequence, asked)

    def evicted(self, held: Held) -> None:
        """Count a message that left the ring before this watcher had read so far."""
        if self._ring is not None and held.sequence > self._after:
            self._after = held.sequence
            asked = self._asked_for(_parsed(held))
            if asked is not None:
                self._lose(asked)

    def _lose(self, chunk: WatchedChunk) -> None:
        lost = len(chunk.recognitions)
        self._dropped += lost
        self._metrics.dropped.labels(WATCHER_SLOW).inc(lost)

    def _asked_for(self, chunk: WatchedChunk) -> WatchedChunk | None:
        if self._device_ids and chunk.device_id not in self._device_ids:
            return None
        if not self._track_ids:
            return chunk
        asked = tuple(item for item in chunk.recognitions if item.track_id in self._track_ids)
        return replace(chunk, recognitions=asked) if asked else None

    def _has_room_for(self, chunk: WatchedChunk) -> bool:
        return self._waiting + len(chunk.recognitions) <= self._capacity

    def _put(self, sequence: int, chunk: WatchedChunk) -> None:
        self._queue.append(_Waiting(sequence, chunk))
        self._waiting += len(chunk.recognitions)
        self._wake.set()

    def _take(self) -> _Waiting:
        oldest = self._queue.popleft()
        self._waiting -= len(oldest.chunk.recognitions)
        return oldest

    def _read(self, ring: Ring) -> None:
        """Queue what the ring holds next, as far as there is room."""
        several = ring.after(self._after, _SLICE)
        if not several:
            self._ring = None
        for held in several:
            asked = self._asked_for(_parsed(held))
            if asked is not None:
                if self._queue and not self._has_room_for(asked):
                    return
                self._put(held.sequence, asked)
            self._after = held.sequence

    def close(self, error: MienError | None = None) -> None:
        """End the iteration once everything is read, with `error` if there is one.

        An error means that the ring has begun anew: what was not read out of it is lost.
        """
        if self._closed:
            return
        self._closed = True
        self._error = error
        if error is not None:
            self._ring = None
        self._wake.set()

    def __aiter__(self) -> "Subscription":
        return self

    async def __anext__(self) -> WatchedChunk:
        while not self._queue:
            if self._ring is not None:
                self._read(self._ring)
                await asyncio.sleep(0)  # a filter may let nothing pass for long
            elif self._error is not None:
                raise self._error
            elif self._closed:
                raise StopAsyncIteration
            else:
                self._wake.clear()
                await self._wake.wait()
        oldest = self._take()
        return replace(
            oldest.chunk,
            dropped=self._dropped,
            resume_token=bytes(ResumeToken(self._run, oldest.sequence)),
        )


def _parsed(held: Held) -> WatchedChunk:
    return WatchedChunk.from_proto(WatchRecognitionsResponse.FromString(held.data))
