"""What a live backlog sees of the spool: a place for the chunks of its epoch."""

from edge_encoder.chunker import Chunk
from edge_encoder.spool.store import Spool
from mien.messages.upward import Hello


class Shelf:
    """The place of one epoch in the spool, a `backlog.Keeper`.

    hello: the epoch's, as its next chunk is written with.
    """

    def __init__(self, spool: Spool, hello: Hello) -> None:
        self._spool = spool
        self.hello = hello

    @property
    def dropped_until(self) -> int:
        """See Keeper, as for all of these."""
        return self._spool.dropped_until(self.hello)

    def add(self, seq: int, chunk: Chunk) -> bool:
        """Keep a chunk, if the disk takes it."""
        return self._spool.add(self.hello, seq, chunk)

    def is_too_large(self, seq: int, chunk: Chunk) -> bool:
        """Larger than all of the spool may be."""
        return self._spool.is_too_large(self.hello, seq, chunk)

    def miss(self, chunk: Chunk) -> None:
        """It waits in memory alone."""
        self._spool.miss(chunk)

    def hold(self, seq: int) -> None:
        """It is in flight."""
        self._spool.hold(self.hello, seq)

    def release(self, seq: int) -> None:
        """It no longer is."""
        self._spool.release(self.hello, seq)

    def settle(self, seq: int) -> None:
        """One chunk is settled."""
        self._spool.settle(self.hello, seq, seq)

    def settle_until(self, seq: int) -> None:
        """Every chunk up to `seq` is."""
        self._spool.settle(self.hello, 0, seq)
