"""The lab: real services as processes, faults between them, and books that must balance.

camera ─▶ LabDevice ═ line ═▶ recognizer(s) ─▶ NATS ─▶ recognizer(s) ─▶ Consumer
             └───────────────────── Books ◀────────────────────────────────┘
"""

import signal
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from mien.tls import TlsFiles
from tests.support.books import Account, Books
from tests.support.consumer import Consumer, consuming
from tests.support.lab_device import FRAME_S, LabDevice, Plan, filming, inside
from tests.support.namespaces import Namespace
from tests.support.nats_server import NatsServer, nats_server
from tests.support.services import Cloud, serving
from tests.support.stepped_clock import SteppedClock
from tests.support.waiting import until

# How long the books must balance without a change: what comes twice comes late.
STEADY_S = 2.0


@dataclass
class Entry:
    """What the report says of one scenario.

    figures: name → value with its unit in the name. series: the same over time, for plots.
    """

    title: str
    rows: list[tuple[str, int]] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    series: dict[str, list[float]] = field(default_factory=dict)


@dataclass
class Lab:
    """What a scenario is made of; everything ends with the stack."""

    bundle: Path
    folder: Path
    stack: ExitStack
    entry: Entry
    _started: int = 0

    def nats(self) -> NatsServer:
        """A NATS server."""
        return self.stack.enter_context(nats_server(self.folder))

    def recognizer(
        self,
        *more: str,
        port: int = 0,
        nats: NatsServer | None = None,
        network: Namespace | None = None,
        host: str = "127.0.0.1",
        clock: SteppedClock | None = None,
    ) -> Cloud:
        """A recognizer that serves. more: further flags of mien-cloud."""
        self._started += 1
        log = self.folder / f"cloud-{self._started}.log"
        joined = ("--nats", nats.address, "--nats_storage", "file") if nats else ()
        with inside(network):
            return self.stack.enter_context(
                serving(self.bundle, log, port, *joined, *more, host=host, clock=clock)
            )

    def consumer(
        self,
        address: str,
        *clouds: Cloud,
        network: Namespace | None = None,
        files: TlsFiles | None = None,
    ) -> Consumer:
        """A consumer that watches by now at one of the recognizers."""
        with inside(network):
            log = self.folder / "consumer.log"
            consumer = self.stack.enter_context(consuming(address, log, files))
        until(
            lambda: sum(cloud_metric(cloud, "watchers", network) for cloud in clouds) >= 1,
            consumer.last_words,
        )
        return consumer

    def device(
        self,
        server: str,
        *more: str,
        name: str = "door",
        spool: bool = False,
        network: Namespace | None = None,
        clock: SteppedClock | None = None,
        frame_s: float = FRAME_S,
    ) -> LabDevice:
        """A device that films a face. more: further flags of mien-edge."""
        spooled = ("--spool", str(self.folder / f"{name}-spool")) if spool else ()
        plan = Plan(name, server, self.bundle, self.folder, (*spooled, *more), network, clock)
        return self.stack.enter_context(filming(plan, frame_s))

    def check_books(self, consumer: Consumer, accounts: Callable[[], tuple[Account, ...]]) -> Books:
        """Wait until nothing is under way any more; every face must be accounted for then."""

        def books() -> Books:
            return Books(accounts(), consumer.seen, consumer.missed)

        until(lambda: books().balance, lambda: f"the books do not balance:\n{books()}")
        time.sleep(STEADY_S)
        closed = books()
        self.entry.rows = closed.rows()
        assert closed.balance, f"the books did balance, and do not any more:\n{closed}"
        return closed


@contextmanager
def stopped(cloud: Cloud) -> Iterator[None]:
    """A recognizer that does nothing meanwhile, while its kernel takes what comes."""
    cloud.process.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        cloud.process.process.send_signal(signal.SIGCONT)


def cloud_metric(cloud: Cloud, name: str, network: Namespace | None = None, **labels: str) -> float:
    """A recognizer's metric, summed over the labels that are not given."""
    return metric_at(f"{cloud.host}:{cloud.metrics_port}", name, network, **labels)


def metric_at(address: str, name: str, network: Namespace | None = None, **labels: str) -> float:
    """The same of the recognizer whose /metrics are at HOST:PORT."""
    url = f"http://{address}/metrics"
    with inside(network), urllib.request.urlopen(url, timeout=60) as response:
        page = response.read().decode()
    return sum(
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == f"mien_cloud_{name}" and labels.items() <= sample.labels.items()
    )
