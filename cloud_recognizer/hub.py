"""Recognitions to those who watch: a bounded queue for each, so that a slow one harms no other."""

import asyncio
from collections import deque
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cloud_recognizer.metrics import WATCHER_SLOW, Metrics
from mien.errors import OverloadedError
from mien.messages import ChunkResult, Recognition, WatchedRecognition


@dataclass(frozen=True, slots=True)
class Origin:
    """Where recognitions come from: what Hello and Welcome have settled."""

    device_id: str
    epoch: int
    epoch_start_unix_ms: int
    bundle_id: str
    expressions: tuple[str, ...]


class Subscription:
    """One watcher's queue, an async iterator that ends when the hub closes and all is read."""

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
        self._queue: deque[tuple[Origin, int, Recognition]] = deque(maxlen=capacity)
        self._dropped = 0
        self._closed = False
        self._wake = asyncio.Event()

    def offer(self, origin: Origin, result: ChunkResult) -> None:
        """Queue what this watcher asked for; when full, the oldest goes, for it is stalest."""
        if self._device_ids and origin.device_id not in self._device_ids:
            return
        for recognition in result.recognitions:
            if self._track_ids and recognition.track_id not in self._track_ids:
                continue
            if len(self._queue) == self._queue.maxlen:
                self._dropped += 1
                self._metrics.dropped.labels(WATCHER_SLOW).inc()
            self._queue.append((origin, result.seq, recognition))
        if self._queue:
            self._wake.set()

    def close(self) -> None:
        """End the iteration once the queue is empty."""
        self._closed = True
        self._wake.set()

    def __aiter__(self) -> "Subscription":
        return self

    async def __anext__(self) -> WatchedRecognition:
        while not self._queue:
            if self._closed:
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()
        origin, seq, recognition = self._queue.popleft()
        return WatchedRecognition(
            device_id=origin.device_id,
            epoch=origin.epoch,
            seq=seq,
            epoch_start_unix_ms=origin.epoch_start_unix_ms,
            bundle_id=origin.bundle_id,
            recognition=recognition,
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
