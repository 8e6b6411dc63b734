"""Who has watched, and what was made viewable: JSON lines in a file that only grows.

    {"time": …, "event": "watch_begun", "peer": …, "role": "consumer", "name": "shop",
     "devices": ["door"], "tracks": 0}
    {"time": …, "event": "watched", "peer": …, "devices": {"door": 412}, "ended": false}
    {"time": …, "event": "reconstructed", "peer": …, "device": "door", "faces": 8}

Never a face, a latent or an expression. `audit_files` says where the lines go. Writing is
done on a thread of its own, for a disk may hang; what is shown waits for its entry.
"""

import asyncio
import contextlib
import errno
import json
import logging
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol, Self

from cloud_recognizer.audit_files import AuditFiles
from cloud_recognizer.caller import Caller
from cloud_recognizer.metrics import AUDIT_LOST, AUDIT_WRITTEN, Metrics
from cloud_recognizer.retention import forget_regularly
from mien.background import background
from mien.errors import AuditError, ConfigError
from mien.messages.watched import WatchedChunk

_log = logging.getLogger(__name__)

# Entries that may wait for a slow disk; beyond, an entry is lost, which is counted.
MAX_PENDING: Final = 256
# A watch that lasts is written again after so long, or when it has seen so many devices.
WATCHED_EVERY_S: Final = 600.0
MAX_LISTED: Final = 1024
MAX_ADDRESS: Final = 200


class Context(Protocol):
    """Who calls: what a gRPC call's context says, or a browser's request as it says the same."""

    def peer(self) -> str:
        """Transport, address and port."""

    def peer_identities(self) -> Iterable[bytes] | None:
        """Names that the transport proves."""

    def invocation_metadata(self) -> Any:
        """(key, value) pairs, keys in lower case, or None."""


class AuditLog:
    """Appends entries; without a path it does nothing. A context manager, which makes the file.

    required: whether AuditError is raised when an entry cannot be written, so that the call ends.
    max_bytes: of one file. files: how many are kept, the one that grows included. max_age_s: of an
    entry, looked at now and then while `running`.
    """

    def __init__(
        self,
        path: Path | None,
        metrics: Metrics,
        *,
        required: bool = False,
        max_bytes: int = 10_000_000,
        files: int = 10,
        max_age_s: float = math.inf,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        if path is not None:
            self._files = AuditFiles(path, max_bytes, files)
        self._metrics = metrics
        self._required = required
        self._max_age_s = max_age_s
        self._clock = clock
        self._pending = 0
        self._failing = False

    def __enter__(self) -> Self:
        if self._path is not None:
            try:
                self._files.make()
            except OSError as error:
                raise ConfigError(
                    f"audit_log: {self._path} cannot be written: {error.strerror}"
                ) from error
            self._writer = ThreadPoolExecutor(1, "audit")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._path is not None:
            self._writer.shutdown()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Forget what is too old, at once and each hour, while the context lasts."""
        if not self.enabled or math.isinf(self._max_age_s):
            yield
            return
        forgetting = forget_regularly(
            self._files.forget,
            max_age_s=self._max_age_s,
            what=f"the audit log {self._path}",
            clock=self._clock,
            executor=self._writer,
        )
        async with background(forgetting, "audit"):
            yield

    @property
    def enabled(self) -> bool:
        """Whether there is a file."""
        return self._path is not None

    async def reconstructed(
        self, context: Context, caller: Caller | None, device_id: str, faces: int
    ) -> None:
        """Viewable faces were made, and are about to be handed out. caller: None: not known."""
        await self._write("reconstructed", context, caller, device=device_id, faces=faces)

    @contextlib.asynccontextmanager
    async def watching(
        self,
        context: Context,
        caller: Caller | None,
        device_ids: Sequence[str],
        track_ids: Sequence[int],
    ) -> "AsyncIterator[Watching]":
        """A watch, from what was asked for to what was seen."""
        asked = list(device_ids) or "all"
        await self._write("watch_begun", context, caller, devices=asked, tracks=len(track_ids))
        watching = Watching(lambda **what: self._write("watched", context, caller, **what))
        try:
            yield watching
        finally:
            # There is nothing more to refuse: one that cannot be written is counted.
            with contextlib.suppress(AuditError):
                await watching.write(ended=True)

    async def _write(
        self, event: str, context: Context, caller: Caller | None, **what: object
    ) -> None:
        if not self.enabled:
            return
        when = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds")
        entry = {"time": when, "event": event, **_whose(context, caller), **what}
        line = json.dumps(entry, ensure_ascii=False).encode() + b"\n"
        try:
            await self._written(line)
        except OSError as error:
            self._fail(error)
        else:
            self._failing = False
            self._metrics.audit_entries.labels(AUDIT_WRITTEN).inc()

    async def _written(self, line: bytes) -> None:
        if self._pending >= MAX_PENDING:
            raise OSError(errno.EAGAIN, f"{self._pending} entries wait for the disk")
        try:
            writing = asyncio.get_running_loop().run_in_executor(
                self._writer, self._files.append, line
            )
        except RuntimeError as error:  # shut down: the last words of a call that was cut
            raise OSError(errno.ESHUTDOWN, "the service stops") from error
        self._pending += 1
        writing.add_done_callback(self._done)
        # A call that is cancelled leaves its entry, which must be written all the same.
        await asyncio.shield(writing)

    def _done(self, writing: "asyncio.Future[None]") -> None:
        self._pending -= 1
        if not writing.cancelled():
            writing.exception()  # looked at, whether or not the call is still there to raise it

    def _fail(self, error: OSError) -> None:
        self._metrics.audit_entries.labels(AUDIT_LOST).inc()
        if not self._failing:
            _log.error("the audit log %s cannot be written: %s", self._path, error)
        self._failing = True
        if self._required:
            raise AuditError(
                "who looks must be written down, and cannot be at present: nothing is shown"
            ) from error


class Watching:
    """Counts what one watcher has seen, and writes it down now and then, and at the end."""

    def __init__(self, write: Any, clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._clock = clock
        self._faces: Counter[str] = Counter()
        self._since_s = clock()

    async def note(self, chunk: WatchedChunk) -> None:
        """A chunk is about to be sent to the watcher. Raises AuditError."""
        self._faces[chunk.device_id] += len(chunk.recognitions)
        late = self._clock() - self._since_s >= WATCHED_EVERY_S
        if late or len(self._faces) >= MAX_LISTED:
            await self.write(ended=False)

    async def write(self, *, ended: bool) -> None:
        """Device → faces seen since the last entry. Raises AuditError."""
        faces, self._faces = self._faces, Counter()
        self._since_s = self._clock()
        await self._write(devices=dict(faces), ended=ended)


def _whose(context: Context, caller: Caller | None) -> dict[str, object]:
    """Who calls, as far as it is known: an address, and a role and a name where they are proven.

    forwarded_for is what a proxy says, and what a caller may have made up where there is none.
    """
    whose: dict[str, object] = {"peer": context.peer()}
    if caller is not None:
        whose |= {"role": caller.identity.role.value, "name": caller.identity.name}
    for key, value in context.invocation_metadata() or ():
        if key == "x-forwarded-for" and isinstance(value, str):
            whose["forwarded_for"] = value[:MAX_ADDRESS]
    return whose
