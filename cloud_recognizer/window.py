"""The window of one stream: chunks that were received and are not settled.

add ─▶ recognised ─▶ publish, in order ─▶ published ─▶ pop_published, in order
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cloud_recognizer.answers import result_of
from cloud_recognizer.hub.contract import Hub, Origin
from cloud_recognizer.intake import Intake
from cloud_recognizer.metrics import STREAM_GONE
from cloud_recognizer.recognizer import Outcome
from mien.messages.results import ChunkResult

if TYPE_CHECKING:  # needs mien[tracing]
    from mien.spans import Trace


@dataclass(slots=True)
class Unsettled:
    """A chunk from when it was received, by the monotonic clock, until it is settled."""

    seq: int
    payload_bytes: int
    received_s: float
    outcome: "asyncio.Future[Outcome]"
    trace: "Trace | None" = None
    payload: bytes = b""  # of archived ones
    result: ChunkResult | None = None  # from here on it is handed to the hub
    published: "asyncio.Future[None] | None" = None


class Window:
    """Hands results to the hub in the order their chunks came; bounded by the stream's credits.

    origin: where they come from; its bundle follows what the device codes with.
    on_published: called when more may be settled.
    """

    def __init__(
        self, origin: Origin, intake: Intake, hub: Hub, on_published: Callable[[], None]
    ) -> None:
        self.origin = origin
        self._intake = intake
        self._hub = hub
        self._on_published = on_published
        self._chunks: deque[Unsettled] = deque()

    @property
    def is_empty(self) -> bool:
        """Whether every chunk is settled."""
        return not self._chunks

    def holds(self, seq: int) -> bool:
        """Whether a chunk was received and is not settled."""
        return any(chunk.seq == seq for chunk in self._chunks)

    def add(self, chunk: Unsettled) -> None:
        """Take the next chunk in."""
        self._chunks.append(chunk)

    def publish(self) -> None:
        """Hand to the hub, in order, what is recognised."""
        for chunk in self._chunks:
            if not chunk.outcome.done():
                return
            if chunk.published is None:
                chunk.result = result_of(chunk.seq, chunk.outcome)
                self._follow_bundle(chunk)
                if chunk.trace is not None:
                    chunk.trace.mark()
                chunk.published = self._hub.publish(self.origin, chunk.result)
                if not chunk.published.done():
                    chunk.published.add_done_callback(lambda _: self._on_published())

    def _follow_bundle(self, chunk: Unsettled) -> None:
        """The device has changed its bundle, or sends what it coded before it did."""
        result = chunk.result
        if result and result.recognitions and result.bundle_id != self.origin.bundle_id:
            expressions = chunk.outcome.result().expressions
            self.origin = replace(self.origin, bundle_id=result.bundle_id, expressions=expressions)

    def pop_published(self) -> tuple[Unsettled, ChunkResult] | None:
        """The oldest chunk with its result, once that is published; it is settled by this."""
        if not self._chunks or (result := _published(self._chunks[0])) is None:
            return None
        return self._chunks.popleft(), result

    def give_up(self) -> None:
        """Settle nothing more.

        Not settled, so not acknowledged: the device sends them again. They leave the queue before
        their places are given to others.
        """
        for chunk in self._chunks:
            self._intake.withdraw(chunk.outcome)
            if chunk.trace is not None:
                chunk.trace.end(STREAM_GONE)
            if chunk.published is not None:
                chunk.published.cancel()
        self._chunks.clear()


def _published(chunk: Unsettled) -> ChunkResult | None:
    # Cancelled is given up by a hub that closes: not published, so never acknowledged.
    if chunk.published is None or not chunk.published.done() or chunk.published.cancelled():
        return None
    return chunk.result
