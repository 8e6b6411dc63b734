"""A service run as a child process: JSON lines on its stdout, its log in a file.

stdout goes through a thread and a queue, so that waiting for a line has a limit; stderr goes
straight to the log file, so that a talkative child never blocks.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_LINES_BUFFERED = 4096
_LOG_TAIL_BYTES = 4096
_LOG_TAIL_LINES = 8


class Child:
    """One child process. Use as a context manager: leaving it stops the process, always."""

    def __init__(self, name: str, module: str, arguments: Sequence[str], log: Path) -> None:
        self.name = name
        self.log = log
        # -u: lines come when they are written, not when a buffer is full.
        self._command = [sys.executable, "-u", "-m", "mien.cli.leash", module, *arguments]
        # None marks the end of the child's stdout. The pipe holds the child back when this is full.
        self._events: queue.Queue[dict[str, Any] | None] = queue.Queue(_LINES_BUFFERED)
        self._process: subprocess.Popen[str] | None = None
        self._stopped = threading.Event()

    def __enter__(self) -> Self:
        with self.log.open("wb") as log:
            # A session of its own: Ctrl-C reaches this process alone, which then stops the
            # children in order.
            self._process = subprocess.Popen(  # noqa: S603 -- our own modules
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                encoding="utf-8",
                start_new_session=True,
                env={**os.environ, "PYTHONFAULTHANDLER": "1"},
            )
        threading.Thread(target=self._read, name=f"{self.name} stdout", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def process(self) -> subprocess.Popen[str]:
        """The running or ended process. Raises RuntimeError before the start."""
        if self._process is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._process

    def next_event(self, timeout_s: float) -> Mapping[str, Any] | None:
        """The next JSON object of its stdout; None when stdout has ended.

        Raises TimeoutError when nothing came for `timeout_s`.
        """
        try:
            event = self._events.get(timeout=timeout_s)
        except queue.Empty:
            raise TimeoutError(f"{self.name} said nothing for {timeout_s:g} s") from None
        if event is None:
            self._events.put(None)
        return event

    def terminate(self) -> None:
        """Ask it to finish (SIGTERM); what it still has to say can be read."""
        if self.process.poll() is None:
            self.process.terminate()

    def wait(self, timeout_s: float) -> int:
        """Its exit code, once it has ended by itself; after the timeout it is stopped."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return self.stop()

    def stop(self, grace_s: float = 5.0) -> int:
        """SIGTERM, after the grace SIGKILL; returns its exit code."""
        self.terminate()
        self._stopped.set()
        try:
            return self.process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def last_words(self) -> str:
        """What it said last for people, "NAME: …"; failing that, the end of its log, indented."""
        with self.log.open("rb") as log:
            log.seek(max(log.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES, 0))
            lines = log.read().decode("utf-8", "replace").splitlines()
        if lines and lines[-1].startswith(f"{self.name}: "):
            return lines[-1]
        tail = "\n".join(f"    {line}" for line in lines[-_LOG_TAIL_LINES:])
        return f"{self.log} ends with:\n{tail}"

    def _read(self) -> None:
        stdout = self.process.stdout
        if stdout is None:  # for the type checker: Popen was given a pipe
            return
        with stdout:
            for line in stdout:
                event = _parse(line)
                if event is not None and not self._offer(event):
                    return
        self._offer(None)

    def _offer(self, event: dict[str, Any] | None) -> bool:
        """Queue an event; False once nobody will read it any more."""
        while not self._stopped.is_set():
            try:
                self._events.put(event, timeout=0.5)
            except queue.Full:
                continue
            return True
        return False


def _parse(line: str) -> dict[str, Any] | None:
    """The JSON object of a line; None for anything else, which belongs to nobody here."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
