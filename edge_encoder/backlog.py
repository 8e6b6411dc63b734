"""The chunks that are not settled yet: those that wait, and those sent and not acknowledged.

    offer ─▶ waiting (bounded) ─▶ next_to_send ─▶ sent ─▶ acknowledge / answer ─▶ forgotten
                                       ▲            │
                                       └── resume ──┘   a new stream sends them again

No asyncio and no gRPC here: `uplink` drives it. A chunk gets its seq when it is first sent, so
dropping a waiting one leaves no gap.
"""

from collections import deque
from dataclasses import dataclass

from edge_encoder.chunker import Chunk


@dataclass
class _Sent:
    chunk: Chunk
    acknowledged: bool = False


class Backlog:
    """At most `capacity` chunks wait; at most `window` are sent and unsettled."""

    def __init__(self, capacity: int, window: int) -> None:
        self._capacity = capacity
        self._window = window
        self._waiting: deque[Chunk] = deque()
        self._sent: dict[int, _Sent] = {}
        self._resend: deque[int] = deque()
        self._last_seq = 0

    @property
    def waiting(self) -> int:
        """Chunks that were never sent."""
        return len(self._waiting)

    @property
    def in_flight(self) -> int:
        """Chunks that were sent and are not settled."""
        return len(self._sent)

    @property
    def is_full(self) -> bool:
        """Whether `offer` would drop a chunk."""
        return len(self._waiting) >= self._capacity

    @property
    def is_empty(self) -> bool:
        """Whether every chunk is settled."""
        return not self._waiting and not self._sent

    @property
    def can_send(self) -> bool:
        """Whether `next_to_send` has one."""
        return bool(self._resend) or (bool(self._waiting) and len(self._sent) < self._window)

    def offer(self, chunk: Chunk) -> Chunk | None:
        """Queue a chunk; when full, the oldest waiting one goes, and is returned.

        A stale face is worth least. What was sent already is never dropped.
        """
        dropped = self._waiting.popleft() if self.is_full else None
        self._waiting.append(chunk)
        return dropped

    def next_to_send(self) -> tuple[int, Chunk]:
        """The next chunk with its seq; from now on it is in flight. Only if `can_send`."""
        if self._resend:
            seq = self._resend.popleft()
            return seq, self._sent[seq].chunk
        chunk = self._waiting.popleft()
        self._last_seq += 1
        self._sent[self._last_seq] = _Sent(chunk)
        return self._last_seq, chunk

    def acknowledge(self, seq: int) -> None:
        """Everything up to `seq` is settled; what it became may still be on its way."""
        for number, sent in self._sent.items():
            if number <= seq:
                sent.acknowledged = True

    def answer(self, seq: int) -> Chunk | None:
        """Forget a chunk whose result or rejection came; None when that is not news."""
        sent = self._sent.pop(seq, None)
        if seq in self._resend:  # answered before it was sent again
            self._resend.remove(seq)
        return sent.chunk if sent else None

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
