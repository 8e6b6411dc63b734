"""Recognitions to those who watch: a bounded queue for each, so that a slow one harms no other."""

import asyncio
from collections import deque
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cloud_recognizer.metrics import WATCHER_SLOW, Metrics
from mien.errors import OverloadedError
from mien.messages import ChunkResult, Recognition, WatchedChunk


@dataclass(frozen=True, slots=True)
class Origin:
    """Where recognitions come from: what Hello and Welcome have settled."""

    device_id: str
    epoch: int
    epoch_start_unix_ms: int
    bundle_id: str
    expressions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Waiting:
    origin: Origin
    seq: int
    recognitions: tuple[Recognition, ...]


class Subscription:
    """One watcher's queue, an async iterator that ends when the hub closes and all is read.

    It holds chunks and is bounded by the recognitions in them: `capacity`, or one chunk where
    that has more.
    """

    def __init__(
        self,
        device_ids: Collection[str],
        track_ids: Collection[int],
        capacity: int,
        metrics: Metrics,
    ) -> None:
        self._device_ids = frozenset(device_ids)
        self._track_ids = frozenset(track_ids)
        self._metrics = metrics
        self._capacity = capacity
        self._queue: deque[_Waiting] = deque()
        self._waiting = 0  # recognitions in the queue
        self._dropped = 0  # recognitions too
        self._closed = False
        self._wake = asyncio.Event()

    def offer(self, origin: Origin, result: ChunkResult) -> None:
        """Queue what this watcher asked for; when full, the oldest chunks go, they are stalest."""
        recognitions = self._asked_for(origin, result)
        if not recognitions:
            return
        while self._queue and self._waiting + len(recognitions) > self._capacity:
            lost = len(self._take().recognitions)
            self._dropped += lost
            self._metrics.dropped.labels(WATCHER_SLOW).inc(lost)
        self._queue.append(_Waiting(origin, result.seq, recognitions))
        self._waiting += len(recognitions)
        self._wake.set()

    def _asked_for(self, origin: Origin, result: ChunkResult) -> tuple[Recognition, ...]:
        if self._device_ids and origin.device_id not in self._device_ids:
            return ()
        if not self._track_ids:
            return result.recognitions
        return tuple(item for item in result.recognitions if item.track_id in self._track_ids)

    def _take(self) -> _Waiting:
        oldest = self._queue.popleft()
        self._waiting -= len(oldest.recognitions)
        return oldest

    def close(self) -> None:
        """End the iteration once the queue is empty."""
        self._closed = True
        self._wake.set()

    def __aiter__(self) -> "Subscription":
        return self

    async def __anext__(self) -> WatchedChunk:
        while not self._queue:
            if self._closed:
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()
        chunk = self._take()
        origin = chunk.origin
        return WatchedChunk(
            device_id=origin.device_id,
            epoch=origin.epoch,
            seq=chunk.seq,
            epoch_start_unix_ms=origin.epoch_start_unix_ms,
            bundle_id=origin.bundle_id,
            recognitions=chunk.recognitions,
            expressions=origin.expressions,
            dropped=self._dropped,
        )


class Hub:
    """Fans results out to at most `max_watchers` subscriptions of `capacity` recognitions each."""

    def __init__(self, metrics: Metrics, *, max_watchers: int, capacity: int) -> None:
        self._metrics = metrics
        self._max_watchers = max_watchers
        self._capacity = capacity
        self._subscriptions: set[Subscription] = set()
        self._closed = False

    @contextmanager
    def subscription(
        self, device_ids: Collection[str], track_ids: Collection[int]
    ) -> Iterator[Subscription]:
        """Subscribe while the context lasts; empty filters let everything pass.

        Raises OverloadedError beyond `max_watchers`.
        """
        if len(self._subscriptions) >= self._max_watchers:
            raise OverloadedError(f"{self._max_watchers} watchers are connected already")
        subscription = Subscription(device_ids, track_ids, self._capacity, self._metrics)
        if self._closed:
            subscription.close()
        self._subscriptions.add(subscription)
        self._metrics.watchers.set(len(self._subscriptions))
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)
            self._metrics.watchers.set(len(self._subscriptions))

    def publish(self, origin: Origin, result: ChunkResult) -> None:
        """Hand the recognitions of one chunk to every subscription that asked for them."""
        for subscription in self._subscriptions:
            subscription.offer(origin, result)

    def close(self) -> None:
        """Let every subscription end once it is read."""
        self._closed = True
        for subscription in self._subscriptions:
            subscription.close()
