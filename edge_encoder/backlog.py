"""The chunks of the live epoch that are not settled: those that wait, and those sent.

    offer ─▶ waiting (bounded) ─▶ next_to_send ─▶ sent ─▶ acknowledge / answer ─▶ forgotten
      │                                ▲            │
      └─▶ keeper (a disk, if any)      └── resume ──┘   a new stream sends them again

No asyncio and no gRPC here: `uplink` drives it. A chunk has its seq from the moment it is offered,
so that its name is the same in memory, on disk and after a crash; one that is dropped leaves a gap.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from edge_encoder.chunker import Chunk

# How traces end of chunks that leave memory for a disk: what comes from there has none.
LEFT_TO_SPOOL: Final = "left_to_spool"
DROPPED_BY_SPOOL: Final = "dropped_by_spool"


class Keeper(Protocol):
    """Where the chunks of one epoch are kept beside the memory, until they are settled."""

    @property
    def dropped_until(self) -> int:
        """The highest seq that a rule of the keeper has dropped; 0 for none."""

    def add(self, seq: int, chunk: Chunk) -> bool:
        """Whether the chunk is kept from now on. Those of an epoch are added in their order."""

    def is_too_large(self, seq: int, chunk: Chunk) -> bool:
        """Whether it could not be kept if there were nothing else."""

    def miss(self, chunk: Chunk) -> None:
        """A new chunk is not kept, and waits in memory alone."""

    def hold(self, seq: int) -> None:
        """The chunk is in flight: no rule may drop it."""

    def release(self, seq: int) -> None:
        """It no longer is."""

    def settle(self, seq: int) -> None:
        """Forget one chunk."""

    def settle_until(self, seq: int) -> None:
        """Forget every chunk up to and including `seq`."""


class MemoryOnly:
    """Keeps nothing."""

    dropped_until = 0

    def add(self, seq: int, chunk: Chunk) -> bool:
        """Keep nothing."""
        return False

    def is_too_large(self, seq: int, chunk: Chunk) -> bool:
        """Nothing is kept, whatever its size."""
        return False

    def miss(self, chunk: Chunk) -> None:
        """Count nothing: memory is where chunks belong here."""

    def hold(self, seq: int) -> None:
        """Do nothing, as the others."""

    release = settle = settle_until = hold


@dataclass
class _Item:
    seq: int
    chunk: Chunk
    kept: bool
    offered_s: float
    acknowledged: bool = False


class Backlog:
    """At most `capacity` chunks wait in memory; at most `window` are sent and unsettled."""

    def __init__(
        self,
        capacity: int,
        window: int,
        keeper: Keeper | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._capacity = capacity
        self._window = window
        self._keeper: Keeper = keeper or MemoryOnly()
        self._waiting: deque[_Item] = deque()
        self._sent: dict[int, _Item] = {}
        self._resend: deque[int] = deque()
        self._last_seq = self._last_sent = 0
        self._behind = False

    @property
    def waiting(self) -> int:
        """Chunks in memory that were never sent."""
        return len(self._waiting)

    @property
    def in_flight(self) -> int:
        """Chunks that were sent and are not settled."""
        return len(self._sent)

    @property
    def lag_s(self) -> float:
        """How long the oldest chunk in memory that is not answered has waited; 0 without one.

        Asked from the metrics' thread, too: each queue is copied at once, not walked.
        """
        oldest = next(iter([*list(self._sent.values()), *list(self._waiting)[:1]]), None)
        return self._clock() - oldest.offered_s if oldest is not None else 0.0

    @property
    def is_full(self) -> bool:
        """Whether `offer` would put a chunk out of memory."""
        return len(self._waiting) >= self._capacity

    @property
    def is_empty(self) -> bool:
        """Whether every chunk is settled."""
        return not self._waiting and not self._sent

    @property
    def behind(self) -> bool:
        """Whether chunks wait with the keeper alone.

        The epoch is theirs then: what is newer must not overtake them under it, so nothing more is
        sent for the first time, and fresh chunks need an epoch of their own.
        """
        return self._behind

    @property
    def can_send(self) -> bool:
        """Whether `next_to_send` has one."""
        fresh = bool(self._waiting) and not self._behind and len(self._sent) < self._window
        return bool(self._resend) or fresh

    def offer(self, chunk: Chunk) -> Chunk | None:
        """Queue a chunk; when full, the oldest waiting one leaves memory: stale is worth least.

        Returns that one if it is lost by this. If the keeper has it, it is not, and the backlog is
        `behind` from now on. What was sent already stays.
        """
        others_are_kept = self._keep_what_was_not()
        lost = self._evict() if self.is_full else None
        self._last_seq += 1
        kept = others_are_kept and self._keep(self._last_seq, chunk)
        if not kept:
            self._keeper.miss(chunk)
        self._waiting.append(_Item(self._last_seq, chunk, kept, self._clock()))
        self.forget_dropped()
        return lost

    def _keep(self, seq: int, chunk: Chunk) -> bool:
        if chunk.trace is None:
            return self._keeper.add(seq, chunk)
        chunk.trace.mark()
        kept = self._keeper.add(seq, chunk)
        if kept:
            chunk.trace.lap("spool")
        return kept

    def _evict(self) -> Chunk | None:
        oldest = self._waiting.popleft()
        self._behind = self._behind or oldest.kept
        if not oldest.kept:
            return oldest.chunk
        oldest.chunk.end_trace(LEFT_TO_SPOOL)
        return None

    def shed(self, older_than_s: float) -> list[Chunk]:
        """Drop what has waited unsent for longer, but the newest: a line too thin for all gets
        that late what it gets.

        Returns what is lost by this. What the keeper has waits on, and leaves when memory is full:
        out of its turn it could not be sent under this epoch any more.
        """
        since_s = self._clock() - older_than_s
        if not self._waiting or self._waiting[0].offered_s >= since_s:
            return []  # the oldest is first
        stale = [
            item for item in list(self._waiting)[:-1] if item.offered_s < since_s and not item.kept
        ]
        if stale:
            gone = {item.seq for item in stale}
            self._waiting = deque(item for item in self._waiting if item.seq not in gone)
        return [item.chunk for item in stale]

    def _keep_what_was_not(self) -> bool:
        """Hand the keeper those that it could not take before; whether it has all that it can.

        In their order, and nothing beyond one that it may take yet: else room for an older chunk
        would be made of a newer one, and `dropped_until` would lie beyond what is kept.
        """
        for item in (*self._sent.values(), *self._waiting):
            if item.kept or item.acknowledged:
                continue
            item.kept = self._keeper.add(item.seq, item.chunk)
            if item.kept and item.seq in self._sent:
                self._keeper.hold(item.seq)
            if not item.kept and not self._keeper.is_too_large(item.seq, item.chunk):
                return False
        return True

    def forget_dropped(self) -> None:
        """Do not send what a rule of the keeper has dropped, and counted, in the meantime."""
        gone = self._keeper.dropped_until
        if self._waiting and self._waiting[0].seq <= gone:
            dropped = [item for item in self._waiting if item.seq <= gone and item.kept]
            kept = (item for item in self._waiting if item.seq > gone or not item.kept)
            self._waiting = deque(kept)
            for item in dropped:
                item.chunk.end_trace(DROPPED_BY_SPOOL)

    def next_to_send(self) -> tuple[int, Chunk]:
        """The next chunk with its seq; from now on it is in flight. Only if `can_send`."""
        if self._resend:
            seq = self._resend.popleft()
            return seq, self._sent[seq].chunk
        item = self._waiting.popleft()
        self._sent[item.seq] = item
        self._last_sent = item.seq
        if item.kept:
            self._keeper.hold(item.seq)
        return item.seq, item.chunk

    def acknowledge(self, seq: int) -> None:
        """Everything up to `seq` is settled; what it became may still be on its way."""
        for number, sent in self._sent.items():
            if number <= seq:
                sent.acknowledged = True
        # What was never sent cannot be meant, whatever a server says.
        self._keeper.settle_until(min(seq, self._last_sent))

    def answer(self, seq: int) -> Chunk | None:
        """Forget a chunk whose result or rejection came; None when that is not news."""
        sent = self._sent.pop(seq, None)
        if seq in self._resend:  # answered before it was sent again
            self._resend.remove(seq)
        if sent is None:
            return None
        if sent.kept:
            self._keeper.settle(seq)
        return sent.chunk

    def resume(self, acknowledged_seq: int) -> list[Chunk]:
        """A new stream has begun: plan to send again what is not acknowledged, in its order.

        Returns the chunks that are, and whose answers were lost with the stream before.
        """
        self.acknowledge(acknowledged_seq)
        return self._forget_acknowledged(resend=True)

    def abandon_acknowledged(self) -> list[Chunk]:
        """The stream ended in order: no more answers come for what is acknowledged."""
        return self._forget_acknowledged(resend=False)

    def _forget_acknowledged(self, *, resend: bool) -> list[Chunk]:
        settled = [seq for seq, sent in self._sent.items() if sent.acknowledged]
        unanswered = [self._sent.pop(seq).chunk for seq in settled]
        if resend:
            self._resend = deque(self._sent)
        return unanswered

    def leave(self, lose: Callable[[Chunk], None]) -> list[Chunk]:
        """Leave the epoch to its keeper: what it has is no longer ours.

        Returns, in order, what was never sent nor kept, and may be offered under another epoch.
        lose: is called with what was sent, not acknowledged and not kept: its fate is unknown.
        """
        self.forget_dropped()
        for item in (*self._sent.values(), *self._waiting):
            if item.kept:
                item.chunk.end_trace(LEFT_TO_SPOOL)
        for item in self._sent.values():
            if item.kept:
                self._keeper.release(item.seq)
            elif not item.acknowledged:
                lose(item.chunk)
        loose = [item.chunk for item in self._waiting if not item.kept]
        self._waiting.clear()
        self._sent.clear()
        self._resend.clear()
        return loose
