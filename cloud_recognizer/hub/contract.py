"""The hub's contract: results are published, and those who watch get each of them once.

DeviceStream → Hub.publish → … → Fanout → Subscription → WatchRecognitions

Two keep it: LocalHub for one recognizer, NatsHub for several that share a NATS JetStream.
"""

import asyncio
from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from cloud_recognizer.hub.subscription import Subscription
from mien.messages.results import ChunkResult
from mien.messages.watched import WatchedChunk


@dataclass(frozen=True, slots=True)
class Origin:
    """Where recognitions come from: what Hello and Welcome have settled."""

    device_id: str
    epoch: int
    epoch_start_unix_ms: int
    bundle_id: str
    expressions: tuple[str, ...]


class Hub(Protocol):
    """An async context manager between the streams of devices and those who watch."""

    async def __aenter__(self) -> Self:
        """Raises UnavailableError or ConfigError when results could not be published."""

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give up what is not published: its future is cancelled."""

    def publish(self, origin: Origin, result: ChunkResult) -> "asyncio.Future[None]":
        """Publish a chunk's recognitions; the future is done once nothing can undo that.

        It never fails: it waits for as long as it takes, and may be cancelled. The results of one
        origin are published in the order of the calls. What is handed in twice, by whichever
        recognizer, is seen once; how long that holds is the hub's to say.
        """

    def published_seq(self, device_id: str, epoch: int) -> int:
        """The highest seq of an epoch that is known to be published, whoever did it; 0 for none.

        Whatever is at or below it is settled. What this process has published itself, its sessions
        know, so a hub of its own may know nothing.
        """

    def subscription(
        self, device_ids: Collection[str], track_ids: Collection[int], resume_token: bytes = b""
    ) -> AbstractAsyncContextManager[Subscription]:
        """Subscribe while the context lasts: see Fanout.subscription."""

    def on_published(self, callback: Callable[[WatchedChunk, float], None]) -> None:
        """Call back with every chunk that is published from now on, and its age in seconds.

        Whoever published it, in the order in which those who watch get them. It must not raise.
        """

    def close(self) -> None:
        """Let every subscription end once it is read."""


def watched(origin: Origin, result: ChunkResult) -> WatchedChunk:
    """A chunk's recognitions as those who watch see them."""
    return WatchedChunk(
        device_id=origin.device_id,
        epoch=origin.epoch,
        seq=result.seq,
        epoch_start_unix_ms=origin.epoch_start_unix_ms,
        bundle_id=origin.bundle_id,
        recognitions=result.recognitions,
        expressions=origin.expressions,
        dropped=0,
    )


def published() -> "asyncio.Future[None]":
    """The future of what is published already."""
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    done.set_result(None)
    return done
