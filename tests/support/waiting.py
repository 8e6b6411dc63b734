"""Waiting for what other processes bring about, with a limit for machines that are busy."""

import time
from collections.abc import Callable

PATIENCE_S = 120.0
_LOOK_S = 0.05


def until(
    holds: Callable[[], bool],
    what: Callable[[], str] = lambda: "",
    *,
    patience_s: float = PATIENCE_S,
    look_s: float = _LOOK_S,
) -> None:
    """Wait until it holds. what: says how things are; it is asked only when the wait is over."""
    deadline_s = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < deadline_s, f"not within {patience_s:g} s: {what()}"
        time.sleep(look_s)
