"""Files that are replaced while a service runs: the newest good state of them.

A rotation writes several files, one after the other: what does not fit is no error of a running
service, which keeps what it has until the files fit again.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, Protocol, TypeVar

from mien.errors import CertificateError

_log = logging.getLogger(__name__)

# Of a file that is followed: certificates, keys.
MAX_FILE_BYTES: Final = 1 << 20
# Between the first file of a rotation and the last one nothing is wrong.
SETTLE_S: Final = 2.0
Signature = tuple[tuple[int, int, int], ...]
Content = TypeVar("Content", covariant=True)


class Files(Protocol[Content]):
    """What can be followed."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """All of them; the last one names them in the log."""

    def read(self) -> Content:
        """Read and check all of it. Raises CertificateError."""


@dataclass
class _Trouble:
    """A state of the files that cannot be used. said: whether anyone was told."""

    seen: Signature
    since_s: float
    said: bool = False


class Followed(Generic[Content]):
    """The newest good state of the files. Safe to be asked from several threads.

    on_refused: called once for each state of the files that cannot be used and stays. Raises as
    `files.read` when made.
    """

    def __init__(
        self,
        files: Files[Content],
        on_refused: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._files = files
        self._on_refused = on_refused
        self._clock = clock
        self._lock = threading.Lock()
        self._trouble: _Trouble | None = None
        # Looked at before they are read: what is written meanwhile is a change.
        self._used = self._signature()
        self._content = files.read()

    def current(self) -> Content:
        """What is to be used now: read anew where the files are not those in use."""
        with self._lock:
            seen = self._signature()
            if seen != self._used:
                self._take(seen)
            return self._content

    def _signature(self) -> Signature:
        return tuple(_signature_of(path) for path in self._files.paths)

    def _take(self, seen: Signature) -> None:
        try:
            self._content = self._files.read()
        except CertificateError as error:
            self._refuse(seen, error)
        else:
            self._used, self._trouble = seen, None
            _log.info("%s and what belongs to it were read anew", self._files.paths[-1])

    def _refuse(self, seen: Signature, error: CertificateError) -> None:
        now_s = self._clock()
        if self._trouble is None or self._trouble.seen != seen:
            self._trouble = _Trouble(seen, now_s)
        elif not self._trouble.said and now_s - self._trouble.since_s >= SETTLE_S:
            self._trouble.said = True
            _log.error("what was read before stays in use: %s", error)
            self._on_refused()


def _signature_of(path: Path) -> tuple[int, int, int]:
    """Changes with a file, also when it comes or goes."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0, 0  # reading it says what is wrong
    return found.st_mtime_ns, found.st_size, found.st_ino
