"""One process at a time in a folder that several may change."""

import fcntl
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Self

_RETRY_S = 0.05


class FolderLock:
    """An advisory lock on a folder itself: no file is left behind, and it ends with its process.

    timeout_s: longest wait. As a context manager it raises TimeoutError, an OSError, after that,
    and OSError for a folder that cannot be opened.
    """

    def __init__(self, folder: Path, timeout_s: float = 10.0) -> None:
        self._folder = folder
        self._timeout_s = timeout_s

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    def acquire(self) -> None:
        """Wait for the lock; blocks the thread."""
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        deadline_s = time.monotonic() + self._timeout_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline_s:
                    os.close(descriptor)
                    raise TimeoutError(
                        f"another process has held {self._folder} for {self._timeout_s:g} s"
                    ) from None
                time.sleep(_RETRY_S)  # flock knows no time limit of its own
            except OSError:
                os.close(descriptor)
                raise
            else:
                self._descriptor = descriptor
                return

    def release(self) -> None:
        """Let the next one in."""
        os.close(self._descriptor)
