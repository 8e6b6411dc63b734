"""The hub of one recognizer: published is what this process has handed to its watchers."""

import asyncio
import secrets
from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Self

from cloud_recognizer.hub.contract import Origin, published, watched
from cloud_recognizer.hub.fanout import Fanout
from cloud_recognizer.hub.subscription import Subscription
from mien.messages.results import ChunkResult
from mien.messages.watched import WatchedChunk


class LocalHub:
    """See Hub. Once-only is the sessions' doing: a settled chunk is never handed in again."""

    def __init__(self, fanout: Fanout) -> None:
        self._fanout = fanout
        fanout.run = secrets.randbits(64)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def publish(self, origin: Origin, result: ChunkResult) -> "asyncio.Future[None]":
        """Hand the recognitions of one chunk to every subscription that asked for them."""
        if result.recognitions:
            chunk = watched(origin, result)
            data = chunk.to_proto().SerializeToString() if self._fanout.holds else b""
            self._fanout.append(self._fanout.last + 1, chunk, data)
        return published()

    def published_seq(self, device_id: str, epoch: int) -> int:
        """See Hub: nobody else publishes here."""
        return 0

    def subscription(
        self, device_ids: Collection[str], track_ids: Collection[int], resume_token: bytes = b""
    ) -> AbstractAsyncContextManager[Subscription]:
        """See Hub."""
        return self._fanout.subscription(device_ids, track_ids, resume_token)

    def on_published(self, callback: Callable[[WatchedChunk, float], None]) -> None:
        """See Hub."""
        self._fanout.on_append(callback)

    def close(self) -> None:
        """See Hub."""
        self._fanout.close()
