"""One /metrics for all cameras: the supervisor's own, and those of each camera's process.

The processes are asked when Prometheus asks, and the label `camera` is added. Its values are the
names in the operator's file, at most `cameras_file.MAX_CAMERAS`; what leaves the file leaves here.
"""

import http.client
import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from mien.exit_codes import ExitCode

_log = logging.getLogger(__name__)

# Why a camera's process was started again: how it ended, a signal, or that it could not start.
SIGNAL: Final = "signal"
NO_START: Final = "no_start"
REASONS: Final = (
    *(code.name.lower() for code in ExitCode if code is not ExitCode.OK),
    *(SIGNAL, NO_START),
)
# What was made of a new configuration.
APPLIED: Final = "applied"
REFUSED: Final = "refused"

SCRAPE_TIMEOUT_S: Final = 0.8
SCRAPED_AT_ONCE: Final = 16
MAX_PAGE_BYTES: Final = 4 << 20


class FleetMetrics:
    """The supervisor's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self._cameras: set[str] = set()
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.config_is_newest = Gauge(
            "mien_edge_fleet_config_is_newest",
            "Whether the configuration in force is what the file says; 0 when that was refused",
            registry=self.registry,
        )
        self._up = Gauge(
            "mien_edge_fleet_camera_up",
            "Whether the camera's process runs",
            ("camera",),
            registry=self.registry,
        )
        self._configs = self._counter("configs", "Changes of the file, by outcome", "outcome")
        self._restarts = self._counter(
            "restarts", "Processes started again, by how they ended", "camera", "reason"
        )
        self._bad_lines = self._counter(
            "dropped_lines", "Lines of a process that are no event", "camera"
        )
        self._failed_scrapes = self._counter(
            "failed_scrapes", "Processes that did not give their metrics", "camera"
        )
        for outcome in (APPLIED, REFUSED):
            self._configs.labels(outcome)

    def add_camera(self, camera: str) -> None:
        """Show a camera, all at zero."""
        self._cameras.add(camera)
        self._up.labels(camera).set(0)
        self._bad_lines.labels(camera)
        self._failed_scrapes.labels(camera)
        for reason in REASONS:
            self._restarts.labels(camera, reason)

    def remove_camera(self, camera: str) -> None:
        """Show it no more."""
        self._cameras.discard(camera)
        for family in (self._up, self._bad_lines, self._failed_scrapes):
            family.remove(camera)
        for reason in REASONS:
            self._restarts.remove(camera, reason)

    def config(self, outcome: str) -> None:
        """Count a change of the file."""
        self._configs.labels(outcome).inc()
        self.config_is_newest.set(outcome == APPLIED)

    def up(self, camera: str, runs: bool) -> None:
        """A camera's process has begun or ended."""
        self._up.labels(camera).set(runs)

    def restart(self, camera: str, reason: str) -> None:
        """Count that a camera's process is started again."""
        self._restarts.labels(camera, reason).inc()

    def drop_line(self, camera: str) -> None:
        """Count a line that is no event."""
        self._bad_lines.labels(camera).inc()

    def failed_scrape(self, camera: str) -> None:
        """Count a process that did not give its metrics; from any thread."""
        if camera in self._cameras:  # it may have left while it was asked
            self._failed_scrapes.labels(camera).inc()

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"mien_edge_fleet_{name}", text, labels, registry=self.registry)


class FleetCollector(Collector):
    """The supervisor's metrics and, with the label `camera`, those of every process.

    ports: camera → port of 127.0.0.1 at which its process gives its metrics, for those that run.
    """

    def __init__(self, metrics: FleetMetrics, ports: Callable[[], Mapping[str, int]]) -> None:
        self._metrics = metrics
        self._ports = ports

    def collect(self) -> Iterator[Metric]:
        """Called by the registry that this is registered with, on the endpoint's threads."""
        ports = self._ports()
        with ThreadPoolExecutor(SCRAPED_AT_ONCE, "scrape") as pool:
            pages = list(pool.map(self._page, ports, ports.values()))
        families: dict[str, Metric] = {}

        def add(found: Metric, samples: list[Sample]) -> None:
            # A family of our own making: some collectors give the same object each time.
            new = Metric(found.name, found.documentation, found.type)
            families.setdefault(found.name, new).samples.extend(samples)

        for family in self._metrics.registry.collect():
            add(family, family.samples)
        for camera, page in zip(ports, pages, strict=True):
            for family in page:
                add(family, [_labelled(sample, camera) for sample in family.samples])
        yield from families.values()

    def _page(self, camera: str, port: int) -> list[Metric]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SCRAPE_TIMEOUT_S)
        try:
            connection.request("GET", "/metrics")
            text = connection.getresponse().read(MAX_PAGE_BYTES).decode()
            return list(text_string_to_metric_families(text))
        except (OSError, http.client.HTTPException, ValueError) as error:
            _log.debug("camera %s gave no metrics: %s", camera, error)
            self._metrics.failed_scrape(camera)
            return []
        finally:
            connection.close()


def _labelled(sample: Sample, camera: str) -> Sample:
    return sample._replace(labels=sample.labels | {"camera": camera})
