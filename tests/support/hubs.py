"""Hubs of both kinds, opened as the server opens them, and what tests put through them."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloud_recognizer.config import CloudConfig
from cloud_recognizer.hub.contract import Hub, Origin
from cloud_recognizer.hub.opening import open_hub
from cloud_recognizer.hub.subscription import Subscription
from cloud_recognizer.metrics import Metrics
from mien.bitstream import Box
from mien.messages.results import ChunkResult, ItemStatus, Recognition
from mien.messages.watched import WatchedChunk

BUNDLE_ID = "b" * 64


@dataclass(frozen=True)
class Opened:
    """A hub that publishes, and what it counts."""

    hub: Hub
    metrics: Metrics

    def sample(self, name: str, **labels: str) -> float:
        """A metric's value, 0 while it has none."""
        return self.metrics.registry.get_sample_value(f"mien_cloud_{name}", labels) or 0.0


@asynccontextmanager
async def opened(**settings: Any) -> AsyncIterator[Opened]:
    """A hub as these settings of the recognizer ask for."""
    metrics = Metrics()
    async with open_hub(CloudConfig(Path(), **settings), metrics) as hub:
        yield Opened(hub, metrics)


def origin(device_id: str = "door", epoch: int = 4) -> Origin:
    return Origin(device_id, epoch, 1_700_000_000_000, BUNDLE_ID, ("neutral", "surprise"))


def result(seq: int, tracks: Sequence[int] = (7,)) -> ChunkResult:
    """A chunk with one face of each track."""
    faces = [
        Recognition(index, 40 * index, track, Box(1, 2, 3, 4), "surprise", 0.75, (0.25, 0.75))
        for index, track in enumerate(tracks)
    ]
    return ChunkResult(seq, ItemStatus.RESULT, BUNDLE_ID, tuple(faces))


async def publish(hub: Hub, seqs: Sequence[int], device_id: str = "door", epoch: int = 4) -> None:
    """Publish one-face chunks and wait until they are."""
    source = origin(device_id, epoch)
    for done in [hub.publish(source, result(seq)) for seq in seqs]:
        await done


async def read(subscription: Subscription, count: int) -> list[WatchedChunk]:
    return [await anext(subscription) for _ in range(count)]


def seqs(chunks: Sequence[WatchedChunk]) -> list[int]:
    return [chunk.seq for chunk in chunks]
