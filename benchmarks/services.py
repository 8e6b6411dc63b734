"""The two services as child processes: mien-cloud, and the one of JPEG faces."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mien.cli.child import Child

START_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Served:
    """A service that answers. said: its first line; port is in it."""

    child: Child
    said: Mapping[str, Any]

    @property
    def address(self) -> str:
        """Where to connect to."""
        return f"127.0.0.1:{self.said['port']}"

    @property
    def metrics_url(self) -> str:
        """Its /metrics, of mien-cloud."""
        return f"http://127.0.0.1:{self.said['metrics_port']}/metrics"

    @property
    def pid(self) -> int:
        """Of its process."""
        return self.child.process.pid


@contextmanager
def recognizer(bundle: Path, folder: Path, *settings: str) -> Iterator[Served]:
    """A recognizer with its default settings but for these; its log goes into folder."""
    arguments = ["serve", "--bundles", str(bundle), "--port", "0", "--metrics_port", "0", *settings]
    with Child("mien-cloud", "cloud_recognizer.cli", arguments, folder / "cloud.log") as child:
        yield _served(child)


@contextmanager
def jpeg_service(bundle: Path, folder: Path) -> Iterator[Served]:
    """The service of JPEG faces with the bundle's pixel classifier; its log goes into folder."""
    arguments = ["--bundle", str(bundle)]
    with Child("jpeg", "benchmarks.jpeg_service", arguments, folder / "jpeg.log") as child:
        yield _served(child)


def _served(child: Child) -> Served:
    said = child.next_event(START_TIMEOUT_S)
    if said is None:
        raise SystemExit(f"{child.name} did not start:\n{child.last_words()}")
    return Served(child, said)
