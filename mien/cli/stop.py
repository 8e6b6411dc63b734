"""Ctrl-C and SIGTERM as a request that is looked at when it suits; the second one is an order."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequest:
    """Whether somebody asked to stop."""

    def __init__(self) -> None:
        self.made = False

    def raise_if_made(self) -> None:
        """Raise KeyboardInterrupt where there is nothing yet to finish in order."""
        if self.made:
            raise KeyboardInterrupt

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Note the first signal. The second raises KeyboardInterrupt wherever the program is."""
        self.raise_if_made()
        self.made = True


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turn signals into a request while the context lasts."""
    request = StopRequest()
    before = {number: signal.signal(number, request.on_signal) for number in _SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
