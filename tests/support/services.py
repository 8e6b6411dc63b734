"""Both services as real processes, on ports that the system chooses."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mien.cli.child import Child
from tests.support.stepped_clock import SteppedClock

# Loopback and a warm start take a second or two; this is for machines that are busy.
PATIENCE_S = 120.0


@dataclass(frozen=True)
class Cloud:
    """A recognizer that serves."""

    process: Child
    port: int
    metrics_port: int
    host: str = "127.0.0.1"
    token_port: int | None = None

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"


@contextmanager
def serving(
    bundle: Path,
    log: Path,
    port: int = 0,
    *more: str,
    host: str = "127.0.0.1",
    clock: SteppedClock | None = None,
) -> Iterator[Cloud]:
    """mien-cloud, until the context ends."""
    arguments = ["serve", "--bundles", str(bundle), "--port", str(port), "--metrics_port", "0"]
    arguments += ["--host", host, "--metrics_host", host, *more]
    module = "cloud_recognizer.cli"
    if clock is not None:
        module, arguments = clock.started(module, *arguments)
    with Child("mien-cloud", module, arguments, log) as process:
        event = process.next_event(PATIENCE_S)
        assert event is not None, f"mien-cloud ended:\n{process.last_words()}"
        assert event["event"] == "serving"
        yield Cloud(process, event["port"], event["metrics_port"], host, event["token_port"])


def edge(source: Path | str, address: str, bundle: Path, log: Path, *more: str) -> Child:
    """mien-edge, to be entered; its results are its events."""
    arguments = ["run", "--source", str(source), "--server", address, "--bundle", str(bundle)]
    return Child("mien-edge", "edge_encoder.cli", [*arguments, "--results", "-", *more], log)
