"""Numbered results to those who watch here, whichever hub they come from.

append(sequence, chunk) → every Subscription, and the Ring for those who come back.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager

from cloud_recognizer.hub.resume_token import ResumeToken
from cloud_recognizer.hub.ring import Held, Ring
from cloud_recognizer.hub.subscription import Subscription
from cloud_recognizer.metrics import WATCHERS, Metrics
from mien.errors import MienError, OverloadedError, ResumeLostError
from mien.messages.watched import WatchedChunk


class Fanout:
    """At most `max_watchers` subscriptions of `capacity` recognitions each, and one ring.

    arrival_s: how long a watcher may be ahead of what has arrived here, having been at another
    recognizer before.
    """

    def __init__(
        self,
        metrics: Metrics,
        ring: Ring,
        *,
        max_watchers: int,
        capacity: int,
        arrival_s: float = 0.0,
    ) -> None:
        self._metrics = metrics
        self._ring = ring
        self._max_watchers = max_watchers
        self._capacity = capacity
        self._arrival_s = arrival_s
        self._watchers = 0
        self._subscriptions: set[Subscription] = set()
        self._callbacks: list[Callable[[WatchedChunk, float], None]] = []
        self._arrived = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self.run = 0
        self.last = 0

    @property
    def holds(self) -> bool:
        """Whether the ring wants the messages' bytes."""
        return self._ring.holds

    def begin(self, run: int, floor: int, error: MienError) -> None:
        """Begin anew after position `floor` of a run; those who watch lose their place: `error`."""
        self.run, self.last = run, floor
        self._ring.begin(floor)
        for subscription in self._subscriptions:
            subscription.close(error)

    def on_append(self, callback: Callable[[WatchedChunk, float], None]) -> None:
        """Call back with each chunk that is appended, and its age in seconds."""
        self._callbacks.append(callback)

    def append(self, sequence: int, chunk: WatchedChunk, data: bytes, age_s: float = 0.0) -> None:
        """Hand on the message after `last`; `data` is its wire form, used where `holds`."""
        self.last = sequence
        for callback in self._callbacks:
            callback(chunk, age_s)
        if self._ring.holds:
            self._note_evicted(self._ring.append(sequence, data, age_s))
            self._set_timer()
        else:
            self._ring.floor = sequence
        for subscription in self._subscriptions:
            subscription.offer(sequence, chunk)
        self._arrived.set()

    def _note_evicted(self, gone: list[Held]) -> None:
        for held in gone:
            for subscription in self._subscriptions:
                subscription.evicted(held)

    def _set_timer(self) -> None:
        # Nothing may outlast its time only because nothing new comes.
        wait_s = self._ring.next_expiry_in_s()
        if self._timer is None and wait_s is not None:
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._expire)

    def _expire(self) -> None:
        self._timer = None
        self._note_evicted(self._ring.expire())
        self._set_timer()

    @asynccontextmanager
    async def subscription(
        self, device_ids: Collection[str], track_ids: Collection[int], resume_token: bytes = b""
    ) -> AsyncIterator[Subscription]:
        """Subscribe while the context lasts: after the token's message, or from now on.

        Empty filters let everything pass. Raises OverloadedError beyond `max_watchers`,
        ProtocolError for a token that nobody gave out, ResumeLostError for one whose place is gone.
        """
        if self._watchers >= self._max_watchers:
            self._metrics.turned_away.labels(WATCHERS).inc()
            raise OverloadedError(f"{self._max_watchers} watchers are connected already")
        self._count(+1)
        try:
            after = await self._place(resume_token) if resume_token else self.last
            subscription = Subscription(
                device_ids,
                track_ids,
                self._capacity,
                self._metrics,
                run=self.run,
                ring=self._ring if after < self.last else None,
                after=after,
            )
            if self._closed:
                subscription.close()
            self._subscriptions.add(subscription)
            try:
                yield subscription
            finally:
                self._subscriptions.discard(subscription)
        finally:
            self._count(-1)

    async def _place(self, resume_token: bytes) -> int:
        token = ResumeToken.parse(resume_token)
        if token.run == self.run and token.sequence > self.last:
            await self._wait_for(token.sequence)
        if token.run != self.run or token.sequence > self.last:
            raise ResumeLostError(
                "resume_token is of another run of the server; watch without it, from now on"
            )
        if token.sequence < self._ring.floor:
            raise ResumeLostError(
                "what came after resume_token is not held any more (--retention_s); "
                "watch without it, from now on"
            )
        return token.sequence

    async def _wait_for(self, sequence: int) -> None:
        try:
            async with asyncio.timeout(self._arrival_s):
                while self.last < sequence:
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            pass

    def _count(self, change: int) -> None:
        self._watchers += change
        self._metrics.watchers.set(self._watchers)

    def close(self) -> None:
        """Let every subscription end once it is read; hold nothing any more."""
        self._closed = True
        for subscription in self._subscriptions:
            subscription.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
