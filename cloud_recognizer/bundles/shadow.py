"""A bundle that answers beside the real one, to be compared with it and to answer nobody.

Recognizer ─offer─▶ queue (bounded) ─▶ a thread ─▶ classify ─▶ disagreements
"""

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import AsyncIterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cloud_recognizer.bundles.catalogue import Catalogue
from cloud_recognizer.metrics import SHADOW_FULL, Metrics
from cloud_recognizer.model import MAX_BATCH_FACES, ExpressionModel

_log = logging.getLogger(__name__)

# Pieces of at most MAX_BATCH_FACES, a few megabytes in all.
CAPACITY: Final = 16

_Piece = tuple[ExpressionModel, NDArray[np.int32], NDArray[np.int32], Sequence[str]]


class Shadow:
    """Compares the catalogue's shadow with what was answered, on a thread of its own."""

    def __init__(self, catalogue: Catalogue, metrics: Metrics, capacity: int = CAPACITY) -> None:
        self._catalogue = catalogue
        self._metrics = metrics
        self._queue: queue.Queue[_Piece | None] = queue.Queue(capacity)
        self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)
        self._stopping = False
        self._current = ""
        self._faces = self._disagreements = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Compare while the context lasts."""
        self._thread.start()
        try:
            yield
        finally:
            self._stopping = True
            with contextlib.suppress(queue.Full):  # it looks at `_stopping` after each piece, too
                self._queue.put_nowait(None)
            await asyncio.to_thread(self._thread.join)

    def offer(
        self,
        model: ExpressionModel,
        symbols: NDArray[np.int32],
        level: NDArray[np.int32],
        expressions: Sequence[str],
    ) -> None:
        """Queue what `model` has answered; when full, the newest faces are not compared.

        Never waits: the real answer is on its way, and nothing of it is delayed.
        symbols: int32 (N, C, H, W). level: int32 (N,). expressions: the answer, N of them.
        """
        if self._catalogue.shadow_of(model) is None:
            return
        for start in range(0, len(symbols), MAX_BATCH_FACES):
            part = slice(start, start + MAX_BATCH_FACES)
            try:
                self._queue.put_nowait((model, symbols[part], level[part], expressions[part]))
            except queue.Full:
                self._metrics.dropped.labels(SHADOW_FULL).inc(len(expressions[part]))

    def _run(self) -> None:
        while not self._stopping and (piece := self._queue.get()) is not None:
            model, symbols, level, expressions = piece
            shadow = self._catalogue.shadow_of(model)
            if shadow is None:  # it has changed since
                continue
            try:
                best = shadow.classify(symbols, level).argmax(axis=1).tolist()
            except Exception:
                self._metrics.shadow_failures.inc()
                _log.exception("shadow bundle %s failed", shadow.bundle_id[:12])
                continue
            self._compare(shadow, [shadow.expressions[index] for index in best], expressions)

    def _compare(
        self, shadow: ExpressionModel, found: Sequence[str], expected: Sequence[str]
    ) -> None:
        if shadow.bundle_id != self._current:
            self._current, self._faces, self._disagreements = shadow.bundle_id, 0, 0
        different = sum(a != b for a, b in zip(found, expected, strict=True))
        self._faces += len(found)
        self._disagreements += different
        self._metrics.shadow_faces.inc(len(found))
        self._metrics.shadow_disagreements.inc(different)
        self._metrics.shadow_share.set(self._disagreements / self._faces)
