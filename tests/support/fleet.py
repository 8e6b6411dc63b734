"""`mien-edge fleet` as a process, with what it said so far."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support.metrics_page import metrics_page

ROOT = Path(__file__).parents[2]
PATIENCE_S = 90.0

Event = dict[str, Any]


class Fleet:
    """A supervisor that runs. events: all that it has said, as they come."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.events: list[Event] = []
        self._came = asyncio.Condition()

    async def read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            async with self._came:
                self.events.append(json.loads(line))
                self._came.notify_all()

    def named(self, event: str, **fields: Any) -> list[Event]:
        """The events like this so far."""
        wanted = {"event": event} | fields
        return [found for found in self.events if wanted.items() <= found.items()]

    async def said(self, event: str, *, after: int = 0, **fields: Any) -> Event:
        """The first event like this from number `after` on, once it is there."""

        def found() -> Event | None:
            wanted = {"event": event} | fields
            there = (it for it in self.events[after:] if wanted.items() <= it.items())
            return next(there, None)

        async with asyncio.timeout(PATIENCE_S), self._came:
            await self._came.wait_for(found)
        event_found = found()
        assert event_found is not None
        return event_found

    def pid(self, camera: str) -> int:
        """Of the camera's latest process."""
        return int(self.named("process", camera=camera, state="started")[-1]["pid"])

    async def metrics(self) -> dict[str, float]:
        port = self.named("fleet")[0]["metrics_port"]
        return await asyncio.to_thread(metrics_page, port)

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to stop; its exit code."""
        self.process.send_signal(number)
        async with asyncio.timeout(PATIENCE_S):
            return await self.process.wait()


@asynccontextmanager
async def fleet(cameras: Path, log: Path, *more: str) -> AsyncIterator[Fleet]:
    """Supervise the cameras of a file until the context ends."""
    with log.open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "edge_encoder.cli", "fleet", "--cameras", str(cameras)),
            *("--metrics_port", "0", *more),
            stdout=subprocess.PIPE,
            stderr=stderr,
            cwd=ROOT,
        )
    running = Fleet(process)
    reading = asyncio.create_task(running.read())
    try:
        yield running
    finally:
        if process.returncode is None:
            await running.stop()
        await reading


def is_alive(pid: int) -> bool:
    """Whether a process of this id runs, and is no zombie."""
    try:
        os.kill(pid, 0)
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False
