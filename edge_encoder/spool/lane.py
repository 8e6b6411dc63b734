"""One epoch on disk as a stream sees it: read a chunk at a time, in order, at a given pace.

    allow ─▶ next_to_send (from disk) ─▶ in flight (held) ─▶ acknowledge / answer ─▶ deleted

Made anew for every stream: what a broken one has left in flight waits on disk as before, and the
server's Welcome says what of it is settled.
"""

from typing import Final

from edge_encoder.chunker import Chunk
from edge_encoder.spool.store import Spool
from mien.messages.upward import Hello

# Two small chunks: enough to hide the way to the server, too little to be in a live one's way.
MAX_IN_FLIGHT: Final = 2


class Lane:
    """What a `FaceStream` sends of an epoch that is over. Nothing is sent before `allow`."""

    behind = False

    def __init__(self, spool: Spool, hello: Hello) -> None:
        self._spool = spool
        self._hello = hello
        self._allowed = False
        self._sent: dict[int, Chunk] = {}
        self._next: tuple[int, Chunk] | None = None
        self._advance(0)
        # Faces that the server had settled before this stream, and whose results nobody took.
        self.unanswered_faces = 0

    def _advance(self, seq: int) -> None:
        self._next = self._spool.next_after(self._hello, seq)
        if self._next is not None:
            self._spool.hold(self._hello, self._next[0])

    @property
    def in_flight(self) -> int:
        """Chunks that were sent on this stream and are not settled."""
        return len(self._sent)

    @property
    def is_empty(self) -> bool:
        """Whether every chunk of the epoch is settled."""
        return self._next is None and not self._sent

    @property
    def can_send(self) -> bool:
        """Whether there is a chunk, and it is its turn."""
        return self._allowed and self._next is not None and len(self._sent) < MAX_IN_FLIGHT

    def allow(self) -> None:
        """Let one more chunk go. Turns that are not taken do not add up."""
        self._allowed = True

    def next_to_send(self) -> tuple[int, Chunk]:
        """The next chunk with its seq. Only if `can_send`."""
        assert self._next is not None  # noqa: S101  # said above
        seq, chunk = self._next
        self._allowed = False
        self._sent[seq] = chunk
        self._advance(seq)
        return seq, chunk

    def acknowledge(self, seq: int) -> None:
        """Delete what is settled; what it became may still be on its way."""
        # What was not sent cannot be meant, but by a Welcome: that is `resume`.
        reached = min(seq, max(self._sent, default=0))
        self._spool.settle(self._hello, 0, reached)

    def answer(self, seq: int) -> Chunk | None:
        """Forget a chunk whose result or rejection came; None when that is not news."""
        chunk = self._sent.pop(seq, None)
        if chunk is not None:
            self._spool.settle(self._hello, seq, seq)
        return chunk

    def resume(self, acknowledged_seq: int) -> list[Chunk]:
        """Delete what earlier streams have settled; go on behind it."""
        if acknowledged_seq > 0:
            self.release()
            self.unanswered_faces = self._spool.settle(self._hello, 0, acknowledged_seq)
            self._advance(acknowledged_seq)
        return []

    def release(self) -> None:
        """The stream is over: nothing of it is in flight any more."""
        for seq in self._sent:
            self._spool.release(self._hello, seq)
        if self._next is not None:
            self._spool.release(self._hello, self._next[0])
