"""One camera's process: started, listened to, started again when it fails, and stopped.

It is `mien-edge run`, which reads its settings from its standard input: command lines and
environments, where others could read a camera's password, hold none of them.
"""

import asyncio
import json
import logging
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import Any, Final

from edge_encoder.config import EdgeConfig
from edge_encoder.fleet.metrics import NO_START, SIGNAL, FleetMetrics
from mien.backoff import Backoff
from mien.exit_codes import ExitCode

_log = logging.getLogger(__name__)

FIRST_RESTART_S: Final = 0.5
LONGEST_RESTART_S: Final = 60.0
# A process that ran for so long is started again soon when it fails.
STEADY_S: Final = 60.0
# An event is some hundred bytes; what is longer was not written by mien-edge.
MAX_LINE_BYTES: Final = 1 << 20

# Called with the fields of an event, "camera" among them.
OnEvent = Callable[[dict[str, Any]], None]


class CameraProcess:
    """Keeps the process of one camera running until its source ends or it is stopped.

    stop_grace_s: how long it may go on sending what it has once it is to stop.
    metrics_port: where it gives its metrics, None while it does not.
    """

    def __init__(
        self,
        name: str,
        config: EdgeConfig,
        on_event: OnEvent,
        metrics: FleetMetrics,
        *,
        stop_grace_s: float,
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.config = config
        self.metrics_port: int | None = None
        self._on_event = on_event
        self._metrics = metrics
        self._stop_grace_s = stop_grace_s
        self._backoff = backoff or Backoff(FIRST_RESTART_S, LONGEST_RESTART_S)
        self._clock = clock
        self._process: Process | None = None
        self._stopping = asyncio.Event()
        self._over = asyncio.Event()

    async def run(self) -> None:
        """Until the source has ended well, the recognizer's policy refuses it, or `stop`.

        Cancelled, it kills the process.
        """
        try:
            while not self._stopping.is_set():
                started_s = self._clock()
                exit_code = await self._run_once()
                if self._stopping.is_set() or exit_code == ExitCode.OK:
                    self._say("stopped" if self._stopping.is_set() else "ended", code=exit_code)
                    return
                if exit_code == ExitCode.POLICY:
                    # The same declaration is refused again: it waits for a change of the file.
                    _log.error("camera %s is refused by the recognizer's policy", self.name)
                    self._say("refused", code=exit_code)
                    return
                if self._clock() - started_s >= STEADY_S:
                    self._backoff.reset()
                await self._pause(exit_code)
        finally:
            self._over.set()

    async def stop(self) -> None:
        """Have it send what it has and end, and wait until it has, or was killed for not doing so.

        It may be called before `run` has begun, and more than once.
        """
        self._stopping.set()
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(self._stop_grace_s):
                await self._over.wait()
        except TimeoutError:
            _log.warning("camera %s did not stop within %g s", self.name, self._stop_grace_s)
            self.kill()
            await self._over.wait()

    def kill(self) -> None:
        """End the process at once."""
        self._signal(signal.SIGKILL)

    async def _run_once(self) -> int | None:
        """The exit code; None where no process could be started."""
        try:
            process = self._process = await _start(self.config)
        except OSError as error:
            _log.error("camera %s: no process can be started: %s", self.name, error)
            return None
        try:
            self._metrics.up(self.name, True)
            self._say("started", pid=process.pid)
            if self._stopping.is_set():
                self._signal(signal.SIGTERM)
            await self._relay(process)
            return await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            self._process = self.metrics_port = None
            self._metrics.up(self.name, False)

    async def _relay(self, process: Process) -> None:
        """Hand on what it says, line by line, until it says no more."""
        assert process.stdout is not None  # noqa: S101  # a pipe, see _start
        try:
            async for line in process.stdout:
                self._hear(line)
        except ValueError:
            _log.error("camera %s writes a line without an end", self.name)
            process.kill()

    def _hear(self, line: bytes) -> None:
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if not isinstance(event, dict) or not isinstance(event.get("event"), str):
            self._metrics.drop_line(self.name)  # the last words of one that was killed
            return
        port = event.pop("metrics_port", None)
        if isinstance(port, int):
            self.metrics_port = port
        if event.get("event") != "metrics":
            self._on_event(event | {"camera": self.name})

    async def _pause(self, exit_code: int | None) -> None:
        reason = _reason(exit_code)
        wait_s = self._backoff.next_s()
        _log.warning(
            "camera %s ended (%s, exit code %s); started again in %.2f s",
            *(self.name, reason, exit_code, wait_s),
        )
        self._metrics.restart(self.name, reason)
        self._say("failed", code=exit_code, reason=reason, restart_in_s=round(wait_s, 2))
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._stopping.wait()

    def _say(self, state: str, **more: Any) -> None:
        self._on_event({"event": "process", "camera": self.name, "state": state, **more})

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)


def _reason(exit_code: int | None) -> str:
    if exit_code is None:
        return NO_START
    if exit_code < 0:
        return SIGNAL
    try:
        return ExitCode(exit_code).name.lower()
    except ValueError:
        return ExitCode.FAILURE.name.lower()


async def _start(config: EdgeConfig) -> Process:
    reading, writing = os.pipe()  # asyncio's own would be a socket, which cannot be opened by name
    try:
        with os.fdopen(writing, "w", encoding="utf-8") as pipe:
            json.dump(asdict(config), pipe, default=str)
        # The settings come from the file alone.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MIEN_EDGE_")}
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-u", "-m", "mien.cli.leash", "edge_encoder.cli"),
            *("run", "--config", "/dev/stdin"),
            stdin=reading,
            stdout=PIPE,
            limit=MAX_LINE_BYTES,
            env=environment,
            # Ctrl-C reaches the supervisor alone, which then stops the cameras in order.
            start_new_session=True,
        )
    finally:
        os.close(reading)
