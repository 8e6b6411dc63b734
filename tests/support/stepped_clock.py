"""A wall clock that a test steps while a service runs.

python -m tests.support.stepped_clock FILE MODULE [ARGUMENT…] runs a module whose wall clock, as
Python reads it, is ahead of the system's by the seconds that stand in FILE. What counts time that
passes (time.monotonic, asyncio, gRPC) does not change, as when a system's clock is set.
"""

import datetime
import runpy
import sys
import time
from pathlib import Path


class SteppedClock:
    """The test's end: how far ahead the service's clock is, from now on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.step(0)

    def step(self, ahead_s: int) -> None:
        """Set it so far ahead of the system's; negative is behind."""
        new = self.path.with_suffix(".new")
        new.write_text(str(ahead_s))
        new.replace(self.path)

    def started(self, module: str, *arguments: str) -> tuple[str, list[str]]:
        """The module and arguments that run a module with this clock."""
        return "tests.support.stepped_clock", [str(self.path), module, *arguments]


def _install(path: str) -> None:
    seconds, nanoseconds, real = time.time, time.time_ns, datetime.datetime

    def ahead_s() -> int:
        return int(Path(path).read_text())

    class Stepped(real):  # type: ignore[misc, valid-type]
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
            return real.fromtimestamp(seconds() + ahead_s(), tz)

    time.time = lambda: seconds() + ahead_s()
    time.time_ns = lambda: nanoseconds() + ahead_s() * 1_000_000_000
    datetime.datetime = Stepped  # type: ignore[misc]


if __name__ == "__main__":
    _install(sys.argv[1])
    sys.argv = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
