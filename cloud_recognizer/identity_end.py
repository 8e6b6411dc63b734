"""No call outlives the certificate or token that it was opened with.

A device is asked to go, and cut if it does not; a watch is cut at once, for its token leads on.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self

from cloud_recognizer.caller import Caller, expired


@asynccontextmanager
async def within_identity(caller: Caller | None) -> AsyncIterator[None]:
    """Raise IdentityExpiredError inside once the caller's proof has expired. None: nobody's has."""
    try:
        async with asyncio.timeout(_left_s(caller)) as limit:
            yield
    except TimeoutError:
        if limit.expired():
            raise expired() from None
        raise


class IdentityEnd:
    """The end of a device's certificate, as its stream sees it; a context manager.

    caller: None where nobody is known. grace_s: from `due`, which calls for a Drain, to the cut.
    wake: called when either has come.
    """

    def __init__(self, caller: Caller | None, grace_s: float, wake: Callable[[], None]) -> None:
        self._caller = caller
        self._grace_s = grace_s
        self._wake = wake
        self._timer: asyncio.TimerHandle | None = None
        self.due = False
        self._overdue = False

    def __enter__(self) -> Self:
        if (left_s := _left_s(self._caller)) is not None:
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
        """Raise IdentityExpiredError where the client was asked to go and has not."""
        if self._overdue:
            raise expired()

    def _ended(self) -> None:
        self.due = True
        self._timer = asyncio.get_running_loop().call_later(self._grace_s, self._cut)
        self._wake()

    def _cut(self) -> None:
        self._overdue = True
        self._wake()


def _left_s(caller: Caller | None) -> float | None:
    if caller is None or math.isinf(caller.ends_unix_s):
        return None
    return max(caller.ends_unix_s - time.time(), 0.0)
