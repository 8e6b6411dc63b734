"""An uplink in a test's hands, and scripts for the servers that it meets."""

import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from edge_encoder.chunker import Chunk, FrameTime
from edge_encoder.metrics import Metrics
from edge_encoder.servers import Servers
from edge_encoder.uplink import Uplink, UplinkSettings
from mien.backoff import Backoff
from mien.bundle import Bundle
from mien.messages.downward import Acknowledgement, Credits, Welcome
from mien.messages.results import ChunkResult, ItemStatus
from mien.messages.upward import EncodedChunk
from tests.support.recognizer import hello, payload
from tests.support.scripted_server import DeviceStream, Script

FACES = 3


@dataclass
class Device:
    """An uplink, and what came of it."""

    uplink: Uplink
    metrics: Metrics
    answers: list[tuple[Chunk, ChunkResult]] = field(default_factory=list)

    def sample(self, name: str) -> float | None:
        """A metric's value."""
        return self.metrics.registry.get_sample_value(f"mien_edge_{name}")

    def reconnects(self, reason: str) -> float | None:
        """Attempts to connect after the first, by why."""
        return self.metrics.registry.get_sample_value(
            "mien_edge_reconnects_total", {"reason": reason}
        )

    @property
    def recognised(self) -> Counter[bytes]:
        """Payload → how often it was answered with a result."""
        return Counter(
            chunk.payload for chunk, result in self.answers if result.status is ItemStatus.RESULT
        )


@asynccontextmanager
async def device(
    servers: Servers | str,
    bundle: Bundle,
    clock: Callable[[], float] = time.monotonic,
    backoff: Backoff | None = None,
    epoch: int = 1,
    **settings: Any,
) -> AsyncIterator[Device]:
    """An uplink to one server or several, whose Hello is that of `hello`."""
    answers: list[tuple[Chunk, ChunkResult]] = []
    metrics = Metrics()
    quick = backoff or Backoff(first_s=0.01, longest_s=0.05)
    async with Uplink(
        Servers((servers,)) if isinstance(servers, str) else servers,
        UplinkSettings(**settings),
        hello(bundle, epoch=epoch),
        lambda chunk, result: answers.append((chunk, result)),
        metrics,
        backoff=quick,
        clock=clock,
    ) as uplink:
        yield Device(uplink, metrics, answers)


def chunk(bundle: Bundle, seed: int = 0) -> Chunk:
    return Chunk(payload(bundle, FACES, seed=seed), (FrameTime(seed, 0.0),) * FACES)


def welcome(bundle: Bundle, credits: int = 100, acknowledged_seq: int = 0) -> Welcome:  # noqa: A002
    return Welcome(bundle.bundle_id, acknowledged_seq, credits, 0, 16384, 64)


def result(seq: int) -> ChunkResult:
    return ChunkResult(seq, ItemStatus.RESULT)


def serving(bundle: Bundle, credits: int = 100) -> Script:  # noqa: A002
    """A script: welcome, then answer each chunk at once, until the device closes its side."""

    async def script(stream: DeviceStream) -> None:
        await stream.read()
        await stream.write(welcome(bundle, credits))
        while isinstance(message := await stream.read(), EncodedChunk):
            await stream.write(result(message.seq), Acknowledgement(message.seq), Credits(1))

    return script
