"""The last published messages, for watchers that come back: so long, so many, so many bytes."""

import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice


@dataclass(frozen=True, slots=True)
class Held:
    """One message as it goes over the wire, and when it must be gone by the ring's clock."""

    sequence: int
    expires_s: float
    data: bytes


class Ring:
    """Messages in the order of their sequence; beyond any bound the oldest goes.

    max_s: how long one is held; 0 holds none. Whatever is newer than `floor` is held.
    """

    def __init__(
        self,
        *,
        max_s: float,
        max_chunks: int,
        max_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_s = max_s
        self._max_chunks = max_chunks
        self._max_bytes = max_bytes
        self._clock = clock
        self._held: deque[Held] = deque()
        self._bytes = 0
        self.floor = 0

    def __len__(self) -> int:
        return len(self._held)

    @property
    def holds(self) -> bool:
        """Whether anything is held at all."""
        return self._max_s > 0

    def append(self, sequence: int, data: bytes, age_s: float = 0.0) -> list[Held]:
        """Hold a message that was published `age_s` ago; return those that had to go for it."""
        self._held.append(Held(sequence, self._clock() + self._max_s - age_s, data))
        self._bytes += len(data)
        return self._evict()

    def expire(self) -> list[Held]:
        """Let go, and return, what has been held for long enough."""
        return self._evict()

    def _evict(self) -> list[Held]:
        gone: list[Held] = []
        now_s = self._clock()
        while self._held and (
            self._held[0].expires_s <= now_s
            or len(self._held) > self._max_chunks
            or self._bytes > self._max_bytes
        ):
            oldest = self._held.popleft()
            self._bytes -= len(oldest.data)
            self.floor = oldest.sequence
            gone.append(oldest)
        return gone

    def next_expiry_in_s(self) -> float | None:
        """Seconds until the oldest must go; None when nothing is held."""
        return max(self._held[0].expires_s - self._clock(), 0.0) if self._held else None

    def after(self, sequence: int, limit: int) -> list[Held]:
        """The first `limit` messages after `sequence`."""
        start = bisect_right(self._held, sequence, key=lambda held: held.sequence)
        return list(islice(self._held, start, start + limit))

    def begin(self, floor: int) -> None:
        """Forget everything; what comes next is newer than `floor`."""
        self._held.clear()
        self._bytes = 0
        self.floor = floor
