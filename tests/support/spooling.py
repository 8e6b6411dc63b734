"""What the spool's tests share: named epochs, numbered chunks, a clock that is set."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_encoder.chunker import Chunk, FrameTime
from edge_encoder.metrics import Metrics
from edge_encoder.spool.clock import Moment
from edge_encoder.spool.ledger import ROW_BYTES
from edge_encoder.spool.seal import body_of
from edge_encoder.spool.store import Spool, SpoolSettings, open_spool
from mien.messages.upward import Hello

BUNDLE_ID = "ab" * 32


@dataclass
class Clock:
    """Clocks as a test says: `now_ms` is the time that passes, by which a right clock goes.

    ahead_ms: what the wall clock shows more. boot: of the system.
    """

    now_ms: int = 1_700_000_000_000
    ahead_ms: int = 0
    boot: str = "a boot"

    def __call__(self) -> Moment:
        return Moment(self.boot, self.now_ms, self.now_ms + self.ahead_ms)


def epoch(number: int, device_id: str = "door") -> Hello:
    return Hello(device_id, number, 1_700_000_000_000 + number, (BUNDLE_ID,), "a test", "none")


def numbered(number: int, faces: int = 1) -> Chunk:
    """A chunk whose payload is its number."""
    return Chunk(f"{number:08d}".encode(), (FrameTime(number, number / 8),) * faces)


ROW = len(body_of(numbered(0))) + ROW_BYTES
"""The bytes that a numbered chunk of one face counts as."""


@contextmanager
def spool_in(
    folder: Path, metrics: Metrics | None = None, clock: Clock | None = None, **settings: Any
) -> Iterator[Spool]:
    made = SpoolSettings(folder, **settings)
    with open_spool(made, metrics or Metrics(), clock or Clock()) as spool:
        yield spool


def kept(spool: Spool, hello: Hello) -> list[int]:
    """The seqs that are on disk of an epoch, read one by one as they are sent."""
    found: list[int] = []
    while item := spool.next_after(hello, found[-1] if found else 0):
        found.append(item[0])
    return found
