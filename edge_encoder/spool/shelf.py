"""What a live backlog sees of the spool: a place for the chunks of its epoch."""

from edge_encoder.chunker import Chunk
from edge_encoder.spool.store import Spool
from mien.messages import Hello


class Shelf:
    """The place of one epoch in the spool, a `backlog.Keeper`."""

    def __init__(self, spool: Spool, hello: Hello) -> None:
        self._spool = spool
        self._hello = hello

    @property
    def dropped_until(self) -> int:
        """See Keeper, as for all of these."""
        return self._spool.dropped_until(self._hello)

    def add(self, seq: int, chunk: Chunk) -> bool:
        """Keep a chunk, if the disk takes it."""
        return self._spool.add(self._hello, seq, chunk)

    def hold(self, seq: int) -> None:
        """It is in flight."""
        self._spool.hold(self._hello, seq)

    def release(self, seq: int) -> None:
        """It no longer is."""
        self._spool.release(self._hello, seq)

    def settle(self, seq: int) -> None:
        """One chunk is settled."""
        self._spool.settle(self._hello, seq, seq)

    def settle_until(self, seq: int) -> None:
        """Every chunk up to `seq` is."""
        self._spool.settle(self._hello, 0, seq)
