"""A child process whose events are read as they come, each with the moment it came."""

import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mien.cli.child import Child

# The reader ends with the child's stdout; this is for its last wait.
_END_S = 3600.0
_GRACE_S = 10.0

Event = Mapping[str, Any]


class Followed:
    """What a child has said so far. events: (seconds of time.monotonic, event), in order."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.events: list[tuple[float, Event]] = []
        self._thread = threading.Thread(target=self._read, name=f"follow {child.name}")

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        """Wait until everything is read, once the child has ended."""
        self._thread.join()

    def _read(self) -> None:
        while (event := self.child.next_event(_END_S)) is not None:
            self.events.append((time.monotonic(), event))

    def named(self, name: str) -> list[Event]:
        """The events of this name so far."""
        return [event for _, event in self.events if event["event"] == name]

    def first_after(self, moment_s: float, name: str) -> float | None:
        """When the first event of this name after a moment came, None while there is none."""
        times = (at_s for at_s, event in self.events if event["event"] == name and at_s > moment_s)
        return next(times, None)


@contextmanager
def followed(name: str, module: str, arguments: Sequence[str], log: Path) -> Iterator[Followed]:
    """Run a module until the context ends."""
    with Child(name, module, arguments, log) as child:
        following = Followed(child)
        following.start()
        try:
            yield following
        finally:
            _end(child)
            following.join()


def _end(child: Child) -> None:
    """End it in a way that lets everything be read that it has said."""
    child.terminate()
    try:
        child.process.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        child.process.kill()
        child.process.wait()
