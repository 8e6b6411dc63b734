"""A stream must not outlive its certificate: it is asked to go, and cut if it does not."""

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from mien.errors import CertificateExpiredError


class CertificateEnd:
    """The end of one stream's certificate; a context manager.

    ends_unix_s: None where there is no certificate. grace_s: from `due`, which calls for a Drain,
    to the cut. wake: called when either has come.
    """

    def __init__(self, ends_unix_s: float | None, grace_s: float, wake: Callable[[], None]) -> None:
        self._ends_unix_s = ends_unix_s
        self._grace_s = grace_s
        self._wake = wake
        self._timer: asyncio.TimerHandle | None = None
        self.due = False
        self._overdue = False

    def __enter__(self) -> Self:
        if self._ends_unix_s is not None:
            left_s = max(self._ends_unix_s - time.time(), 0.0)
            self._timer = asyncio.get_running_loop().call_later(left_s, self._ended)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def check(self) -> None:
        """Raise CertificateExpiredError where the client was asked to go and has not."""
        if self._overdue:
            raise CertificateExpiredError(
                "the certificate of this connection has expired: connect with its successor"
            )

    def _ended(self) -> None:
        self.due = True
        self._timer = asyncio.get_running_loop().call_later(self._grace_s, self._cut)
        self._wake()

    def _cut(self) -> None:
        self._overdue = True
        self._wake()
