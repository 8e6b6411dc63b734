"""The live epoch: its Hello and its backlog, and a new one when the old has fallen behind.

Without a spool a run is one epoch. With one, an outage that fills the queue leaves the epoch to the
disk (`spool.catch_up` sends it), and what comes after the next Welcome is of a new epoch, so that
fresh faces need not wait for old ones and yet no track runs backwards within an epoch.
"""

import asyncio
import logging
import time
from dataclasses import replace
from typing import Final

from edge_encoder.backlog import Backlog
from edge_encoder.chunker import Chunk
from edge_encoder.face_stream import MAX_IN_FLIGHT
from edge_encoder.metrics import UNANSWERED, UNCONFIRMED, UPLINK_FULL, Metrics
from edge_encoder.spool.ledger import Key
from edge_encoder.spool.shelf import Shelf
from edge_encoder.spool.store import Spool, key_of
from mien.messages.upward import Hello

_log = logging.getLogger(__name__)

# Of bundles that the device has, so many are told to the server: of others nothing is left to send.
MAX_TOLD_BUNDLES: Final = 4
# How often the spool's rules are applied when nothing is added.
UPKEEP_S: Final = 30.0


class Epochs:
    """Which epoch fresh chunks belong to. capacity: chunks that may wait in memory."""

    def __init__(
        self, hello: Hello, capacity: int, metrics: Metrics, spool: Spool | None = None
    ) -> None:
        self._capacity = capacity
        self._metrics = metrics
        self._spool = spool
        self.hello = hello
        self._shelf = self._next_shelf = self._shelf_of(hello)
        self.backlog = self._backlog_on(self._shelf)
        metrics.queue_chunks.set_function(lambda: self.backlog.waiting)
        metrics.in_flight_chunks.set_function(lambda: self.backlog.in_flight)
        metrics.lag.set_function(lambda: self.backlog.lag_s)

    def _shelf_of(self, hello: Hello) -> Shelf | None:
        return Shelf(self._spool, hello) if self._spool else None

    def _backlog_on(self, shelf: Shelf | None) -> Backlog:
        return Backlog(self._capacity, MAX_IN_FLIGHT, shelf)

    @property
    def key(self) -> Key:
        """The live epoch, as the server knows it."""
        return key_of(self.hello)

    def prefer(self, bundle_id: str) -> None:
        """Chunks are coded with this bundle from now on."""
        others = tuple(known for known in self.hello.bundle_ids if known != bundle_id)
        told = (bundle_id, *others)[:MAX_TOLD_BUNDLES]
        self._tell(replace(self.hello, bundle_ids=told))

    def _tell(self, hello: Hello) -> None:
        self.hello = hello
        if self._shelf is not None:
            self._shelf.hello = hello

    def offer(self, chunk: Chunk) -> None:
        """Queue a chunk; one that is lost by this is counted."""
        lost = self.backlog.offer(chunk)
        if lost is not None:
            self._drop(UPLINK_FULL, [lost])

    def shed(self, older_than_s: float) -> None:
        """Drop and count what has waited unsent for longer, see Backlog."""
        self._drop(UPLINK_FULL, self.backlog.shed(older_than_s))

    def next(self) -> tuple[Hello, Backlog]:
        """What the next stream is about: this epoch, or a new one where it has fallen behind."""
        if self._spool is None or not self.backlog.behind:
            return self.hello, self.backlog
        now_ms = time.time_ns() // 1_000_000
        epoch = self._spool.next_epoch(max(now_ms, self.hello.epoch + 1))
        hello = replace(self.hello, epoch=epoch)  # its start stays: face times count from there
        self._next_shelf = self._shelf_of(hello)
        return hello, self._backlog_on(self._next_shelf)

    def welcomed(self, hello: Hello, backlog: Backlog) -> None:
        """A stream of what `next` gave is welcomed: from now on that is the live epoch."""
        if backlog is self.backlog:
            return
        _log.info("epoch %d is left to the spool, %d begins", self.hello.epoch, hello.epoch)
        loose = self._leave()
        self.backlog, self._shelf = backlog, self._next_shelf
        # The bundle may have been changed since `next`.
        self._tell(replace(hello, bundle_ids=self.hello.bundle_ids))
        for chunk in loose:
            self.offer(chunk)

    def lose_unanswered(self, chunks: list[Chunk]) -> None:
        """Settled by the server, but the connection broke before their results came."""
        self._drop(UNANSWERED, chunks)

    def abandon(self) -> None:
        """The run is over: what is on disk stays there, the rest is counted.

        As lost if it was never sent; else it may have been recognised, and is unconfirmed.
        """
        self._drop(UPLINK_FULL, self._leave())

    def _leave(self) -> list[Chunk]:
        self.lose_unanswered(self.backlog.abandon_acknowledged())
        return self.backlog.leave(lambda chunk: self._drop(UNCONFIRMED, [chunk]))

    def _drop(self, reason: str, chunks: list[Chunk]) -> None:
        if chunks:
            self._metrics.drop(reason, sum(len(chunk.frames) for chunk in chunks))
        for chunk in chunks:
            chunk.end_trace(reason)

    async def keep_rules(self) -> None:
        """Apply the spool's rules now and then, until cancelled."""
        while self._spool is not None:
            await asyncio.sleep(UPKEEP_S)
            self._spool.apply_rules()
            self.backlog.forget_dropped()
