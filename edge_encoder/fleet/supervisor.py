"""Several cameras: each is a process of its own, and a file says which there are.

    cameras.yaml ──▶ Fleet ──▶ CameraProcess ══ stdin: settings ══▶ mien-edge run
                                     │      ◀══ stdout: events ════
                                     └─▶ ResultWriter, FleetMetrics

The supervisor reads no picture, so that no decoder can bring it down. See decision 11.
"""

import asyncio
import logging
import signal
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client import CollectorRegistry

from edge_encoder.config import EdgeConfig
from edge_encoder.fleet.cameras_file import Cameras, CamerasFile
from edge_encoder.fleet.config import FleetConfig
from edge_encoder.fleet.metrics import APPLIED, REFUSED, FleetCollector, FleetMetrics
from edge_encoder.fleet.process import CameraProcess
from edge_encoder.results import ResultWriter, open_results
from mien.errors import ConfigError
from mien.exit_codes import ExitCode
from mien.metrics_endpoint import metrics_endpoint

_log = logging.getLogger(__name__)

# How often the file is looked at; it must be the same twice before it is read.
POLL_S: Final = 1.0

MakeProcess = Callable[[str, EdgeConfig], CameraProcess]


@dataclass(frozen=True)
class Change:
    """What a new configuration does to the cameras, by name."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]

    @property
    def is_none(self) -> bool:
        """Whether everything stays as it is."""
        return not (self.added or self.changed or self.removed)


class Fleet:
    """The cameras that run, as tasks of a group that ends when one of them has a defect."""

    def __init__(self, group: asyncio.TaskGroup, make: MakeProcess, metrics: FleetMetrics) -> None:
        self._group = group
        self._make = make
        self._metrics = metrics
        self._processes: dict[str, CameraProcess] = {}

    async def apply(self, wanted: Cameras) -> Change:
        """Stop what is not wanted any more, or not like this, and start what is; leave the rest."""
        change = self._difference(wanted)
        # Those that go, go first: their device ids may be wanted by those that come.
        await self._stop(*change.removed, *change.changed)
        for name in change.removed:
            self._metrics.remove_camera(name)
        for name in change.added:
            self._metrics.add_camera(name)
        for name in (*change.changed, *change.added):
            process = self._make(name, wanted[name])
            self._processes = self._processes | {name: process}
            self._group.create_task(process.run(), name=f"camera {name}")
        return change

    async def stop(self) -> None:
        """Have all of them send what they have and end."""
        await self._stop(*self._processes)

    def kill(self) -> None:
        """End all of them at once."""
        for process in self._processes.values():
            process.kill()

    def ports(self) -> Mapping[str, int]:
        """From any thread: camera → port of its metrics, for those that give them."""
        ports = {name: process.metrics_port for name, process in self._processes.items()}
        return {name: port for name, port in ports.items() if port is not None}

    def _difference(self, wanted: Cameras) -> Change:
        there = self._processes
        return Change(
            tuple(name for name in wanted if name not in there),
            tuple(n for n in wanted if n in there and there[n].config != wanted[n]),
            tuple(name for name in there if name not in wanted),
        )

    async def _stop(self, *names: str) -> None:
        leaving = [self._processes[name] for name in names]
        await asyncio.gather(*(process.stop() for process in leaving))
        # A new mapping each time, for the endpoint's threads read it.
        self._processes = {n: p for n, p in self._processes.items() if n not in names}


class Signals:
    """What the supervisor was asked to do: SIGHUP, SIGTERM, SIGINT."""

    def __init__(self) -> None:
        self.reload = False
        self.stop: signal.Signals | None = None
        self.on_second_stop: Callable[[], None] = lambda: None
        self._any = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self._on_reload)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop, number)

    async def wait(self, timeout_s: float) -> None:
        """Until there is one, or the time is over."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._any.wait()
        except TimeoutError:
            pass
        self._any.clear()

    def _on_reload(self) -> None:
        self.reload = True
        self._any.set()

    def _on_stop(self, number: signal.Signals) -> None:
        if self.stop is not None:
            self.on_second_stop()
        self.stop = number
        self._any.set()


async def run(config: FleetConfig) -> ExitCode:
    """Supervise the cameras until a signal asks to stop; a second one ends at once.

    Raises ConfigError for a file that is wrong from the start, BrokenPipeError when nobody reads
    the results any more.
    """
    signals = Signals()
    file = CamerasFile(config.cameras)
    wanted = file.read()
    metrics = FleetMetrics()
    try:
        with ExitStack() as stack:
            results = stack.enter_context(open_results(config.results))
            async with asyncio.TaskGroup() as group:
                fleet = _fleet(config, group, results, metrics)
                signals.on_second_stop = fleet.kill
                registry = CollectorRegistry()
                registry.register(FleetCollector(metrics, fleet.ports))
                port = stack.enter_context(
                    metrics_endpoint(registry, config.metrics_host, config.metrics_port)
                )
                results.write("fleet", cameras=list(wanted), metrics_port=port)
                await _apply(fleet, wanted, results, metrics)
                while signals.stop is None:
                    await signals.wait(POLL_S)
                    if signals.stop is None and (signals.reload or file.has_changed()):
                        signals.reload = False
                        await _reload(fleet, file, results, metrics)
                await fleet.stop()
    except BaseExceptionGroup as group_error:
        raise group_error.exceptions[0] from None
    return ExitCode.INTERRUPTED if signals.stop is signal.SIGINT else ExitCode.OK


def _fleet(
    config: FleetConfig, group: asyncio.TaskGroup, results: ResultWriter, metrics: FleetMetrics
) -> Fleet:
    def on_event(event: dict[str, Any]) -> None:
        results.write(event.pop("event"), **event)

    def make(name: str, camera: EdgeConfig) -> CameraProcess:
        return CameraProcess(name, camera, on_event, metrics, stop_grace_s=config.stop_grace_s)

    return Fleet(group, make, metrics)


async def _reload(
    fleet: Fleet, file: CamerasFile, results: ResultWriter, metrics: FleetMetrics
) -> None:
    """Apply what the file says; what is wrong with it is said, and changes nothing."""
    try:
        # Off the loop: events of the cameras go on meanwhile.
        wanted = await asyncio.to_thread(file.read)
    except ConfigError as error:
        _log.error("the new configuration is refused, the old one stays: %s", error)
        metrics.config(REFUSED)
        results.write("config", outcome=REFUSED, error=str(error))
        return
    await _apply(fleet, wanted, results, metrics)


async def _apply(
    fleet: Fleet, wanted: Cameras, results: ResultWriter, metrics: FleetMetrics
) -> None:
    change = await fleet.apply(wanted)
    _log.info(
        "configuration applied: %d cameras; added: %s; changed: %s; removed: %s",
        len(wanted),
        *(", ".join(names) or "none" for names in (change.added, change.changed, change.removed)),
    )
    metrics.config(APPLIED)
    results.write(
        "config",
        outcome=APPLIED,
        added=change.added,
        changed=change.changed,
        removed=change.removed,
    )
