"""Recognised chunks to an archive on disk: queued on the event loop, written beside it.

    DeviceStream ─ offer ─▶ queue (bounded) ─▶ a part, on a thread ─▶ FOLDER
                                                deleted by age, and by size, the oldest first

Off by default: payloads are personal data. What is queued is lost with a process that is killed,
FLUSH_S of chunks at most.
"""

import asyncio
import importlib.util
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cloud_recognizer.bundles.catalogue import Catalogue
from cloud_recognizer.hub.contract import Origin
from cloud_recognizer.metrics import (
    ARCHIVE_AGE,
    ARCHIVE_FAILED,
    ARCHIVE_FULL,
    ARCHIVE_SIZE,
    Metrics,
)
from cloud_recognizer.retention import forget_regularly
from mien.background import background
from mien.bundle import Bundle
from mien.errors import ConfigError

if TYPE_CHECKING:  # needs mien[archive]
    from cloud_recognizer.archive.files import ArchivedChunk

_log = logging.getLogger(__name__)

# Chunks and bytes that may wait for the disk.
MAX_QUEUED: Final = 16_384
MAX_QUEUED_BYTES: Final = 16 << 20
# A part is written when so many wait, or so often.
PART_CHUNKS: Final = 8192
FLUSH_S: Final = 30.0
# By age no part stays for longer than this beyond its days.
FORGET_EVERY_S: Final = 60.0


class Archive:
    """Keeps the payloads of streams for `max_age_s`, and never more than `max_bytes` of them.

    Raises ConfigError for a folder that cannot be written, and where the extra is not installed.
    clock: Unix time.
    """

    def __init__(
        self,
        folder: Path,
        models: Catalogue,
        metrics: Metrics,
        *,
        max_age_s: float,
        max_bytes: int,
        flush_s: float = FLUSH_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if importlib.util.find_spec("pyarrow") is None:
            raise ConfigError("archive needs the package pyarrow: pip install 'mien[archive]'")
        from cloud_recognizer.archive.files import ArchivedChunk, ArchiveFiles

        self._chunk = ArchivedChunk
        self._files = ArchiveFiles(folder, max_bytes)
        self._folder = folder
        self._models = models
        self._metrics = metrics
        self._max_age_s = max_age_s
        self._flush_s = flush_s
        self._clock = clock
        self._queue: deque[ArchivedChunk] = deque()
        self._queued_bytes = 0
        self._bundles: dict[str, Bundle] = {}
        self._enough = asyncio.Event()
        self._failing = False
        try:
            self._files.make()
        except OSError as error:
            raise ConfigError(f"archive: {folder} cannot be written: {error}") from error

    def offer(self, origin: Origin, seq: int, payload: bytes) -> None:
        """Queue a chunk that was recognised just now; when full, the new one is not kept."""
        full = len(self._queue) >= MAX_QUEUED
        if full or self._queued_bytes + len(payload) > MAX_QUEUED_BYTES:
            self._metrics.dropped.labels(ARCHIVE_FULL).inc()
            return
        if not self._knows(origin.bundle_id):
            self._metrics.dropped.labels(ARCHIVE_FAILED).inc()
            return
        received_ms = round(self._clock() * 1000)
        self._queue.append(
            self._chunk(
                *(origin.device_id, origin.epoch, seq, origin.epoch_start_unix_ms),
                *(received_ms, origin.bundle_id, payload),
            )
        )
        self._queued_bytes += len(payload)
        if len(self._queue) >= PART_CHUNKS or 2 * self._queued_bytes >= MAX_QUEUED_BYTES:
            self._enough.set()

    def _knows(self, bundle_id: str) -> bool:
        """Whether what decodes a bundle's payloads can be kept, which is done at once.

        Its folder may be deleted as soon as no stream uses it.
        """
        if bundle_id not in self._bundles:
            model = self._models.in_memory.get(bundle_id)
            if model is None:  # retired in the moment since it answered
                return False
            self._bundles[bundle_id] = model.bundle
            self._enough.set()
        return True

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write and delete while the context lasts; at its end write what waits."""
        with ThreadPoolExecutor(1, "archive") as self._writer:
            forgetting = forget_regularly(
                self._forget,
                max_age_s=self._max_age_s,
                what=f"the archive {self._folder}",
                clock=self._clock,
                executor=self._writer,
                every_s=FORGET_EVERY_S,
            )
            async with background(forgetting, "archive"):
                try:
                    async with background(self._write_regularly(), "archive"):
                        yield
                finally:
                    await self._flush()

    async def _write_regularly(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._flush_s):
                    await self._enough.wait()
            except TimeoutError:
                pass
            self._enough.clear()
            await self._flush()

    async def _flush(self) -> None:
        chunks = list(self._queue)
        self._queue.clear()
        self._queued_bytes = 0
        if chunks:
            # One that is cancelled meanwhile goes on, on its thread.
            await asyncio.get_running_loop().run_in_executor(self._writer, self._write, chunks)

    def _write(self, chunks: "list[ArchivedChunk]") -> None:
        try:
            for bundle_id in {chunk.bundle_id for chunk in chunks}:
                self._files.keep_bundle(self._bundles[bundle_id])
            self._files.write(chunks)
        # A full disk, and also a defect, costs chunks of the archive and no answer.
        except Exception as error:
            self._metrics.dropped.labels(ARCHIVE_FAILED).inc(len(chunks))
            if not self._failing:
                _log.error("the archive %s cannot be written: %s", self._folder, error)
            self._failing = True
            return
        self._failing = False
        self._metrics.archived.inc(len(chunks))
        try:
            self._metrics.archive_deleted.labels(ARCHIVE_SIZE).inc(self._files.shrink())
            self._metrics.archive_bytes.set(self._files.size_bytes)
        except OSError as error:
            _log.error("the oldest parts of the archive %s stay: %s", self._folder, error)

    def _forget(self, before_s: float) -> None:
        self._metrics.archive_deleted.labels(ARCHIVE_AGE).inc(self._files.forget(before_s))
        self._metrics.archive_bytes.set(self._files.size_bytes)
