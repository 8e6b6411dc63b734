"""What happens to a live source, for the log, the metrics and the results."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from edge_encoder.capture.health import CameraChange, CameraHealth, Watcher
from edge_encoder.metrics import Metrics
from edge_encoder.results import ResultWriter
from mien.background import background

_log = logging.getLogger(__name__)

# Between changes the health is said so often.
HEALTH_EVENT_S: Final = 30.0


class CameraEvents:
    """Writes an event "source" with every change of a live source, and one on every half minute.

    Make it on the event loop, which alone writes results; the source's threads may call it.
    """

    def __init__(self, results: ResultWriter, metrics: Metrics, health: CameraHealth) -> None:
        self._results = results
        self._metrics = metrics
        self._health = health
        self._loop = asyncio.get_running_loop()
        self._state = "opening"
        self._over = False

    @property
    def watcher(self) -> Watcher:
        """What a source is given to be watched."""
        return Watcher(self._health, self._tell)

    @asynccontextmanager
    async def regularly(self) -> AsyncIterator[None]:
        """Say and show the health for as long as the context lasts."""
        self._metrics.show_health(self._health)
        async with background(self._repeat(), "camera health"):
            try:
                yield
            finally:
                self._over = True

    async def _repeat(self) -> None:
        while True:
            await asyncio.sleep(HEALTH_EVENT_S)
            self._write()

    def _tell(self, change: CameraChange) -> None:
        with suppress(RuntimeError):  # the loop has ended before the camera's threads have
            self._loop.call_soon_threadsafe(self._on_change, change)

    def _on_change(self, change: CameraChange) -> None:
        self._state = change.state
        if change.error is None:
            _log.info("the camera delivers")
            self._write()
            return
        retry_in_s = round(change.retry_in_s or 0.0, 2)
        _log.warning("%s; opened again in %.2f s", change.error, retry_in_s)
        self._metrics.lose_camera(change.error.code)
        self._write(code=change.error.code, message=str(change.error), retry_in_s=retry_in_s)

    def _write(self, **more: object) -> None:
        if self._over:
            return
        report = self._health.report()
        with suppress(BrokenPipeError):  # the next recognition ends the run for it
            self._results.write(
                "source",
                state=self._state,
                health=round(report.health, 3),
                delivering_share=round(report.delivering_share, 3),
                fps=round(report.fps, 2),
                reopens=report.reopens,
                **more,
            )
