"""How old a message of NATS is, whatever the two machines' clocks say of the time of day."""

import math
import time
from collections.abc import Callable
from datetime import UTC, datetime


class MessageAge:
    """Ages of the messages of one connection, in seconds.

    The clocks of this machine and of NATS may differ, and ours may be set while we are connected.
    So time goes on by the monotonic clock from the connection on, and the message that seems to
    have been the quickest since is taken to have come at once: others are as old as they are later.
    What was there before the connection can only be judged by the time of day.
    """

    def __init__(
        self,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = lambda: datetime.now(UTC).timestamp(),
    ) -> None:
        self._monotonic = monotonic
        self._ahead_s = now() - monotonic()
        self._quickest_s = math.inf

    def of(self, timestamp: datetime, *, fresh: bool) -> float:
        """The age of a message with this timestamp of NATS's. fresh: published since."""
        seems_s = self._ahead_s + self._monotonic() - timestamp.timestamp()
        if fresh:
            self._quickest_s = min(self._quickest_s, seems_s)
            return seems_s - self._quickest_s
        return max(seems_s, 0.0)
