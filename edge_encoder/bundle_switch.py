"""Changes the bundle while the device streams, when the server asks for another one.

Uplink ─want─▶ one slot (the latest wish counts) ─▶ fetch ─▶ Pipeline.change, between two chunks
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

from edge_encoder.metrics import Metrics
from mien.background import background
from mien.backoff import Backoff
from mien.bundle import Bundle
from mien.errors import MienError

_log = logging.getLogger(__name__)

Fetch = Callable[[str], Awaitable[Bundle]]
Change = Callable[[Bundle], Awaitable[None]]


class BundleSwitch:
    """Brings about the change to the bundle that is wanted; until then the device goes on as it is.

    fetch: a bundle by its id, from the disk or the server. change: make it ready, then encode with
    it. current: the id of the bundle that the device begins with.
    """

    def __init__(
        self,
        fetch: Fetch,
        change: Change,
        current: str,
        metrics: Metrics,
        *,
        backoff: Backoff | None = None,
    ) -> None:
        self._fetch = fetch
        self._change = change
        self._current = self._wanted = current
        self._metrics = metrics
        # A fleet is asked all at once, and the server lets few of it download at a time.
        self._backoff = backoff or Backoff(first_s=1.0, longest_s=60.0)
        self._wake = asyncio.Event()

    def want(self, bundle_id: str) -> None:
        """Note the server's choice; a former one that was not brought about is forgotten."""
        self._wanted = bundle_id
        self._wake.set()

    def running(self) -> AbstractAsyncContextManager[None]:
        """Follow the server's choice while the context lasts."""
        return background(self._run(), "bundle switch")

    async def _run(self) -> None:
        while await self._wake.wait():
            self._wake.clear()
            if self._wanted != self._current:
                await self._attempt(self._wanted)

    async def _attempt(self, wanted: str) -> None:
        """One attempt; after a failure it wakes itself again, or a new wish does."""
        try:
            await self._change(await self._fetch(wanted))
        except Exception as error:  # whatever it is, the device goes on with what it has
            self._metrics.bundle_failures.inc()
            wait_s = self._backoff.next_s()
            _log.warning(
                *("bundle %s: %s; again in %.1f s", wanted[:12], error, wait_s),
                exc_info=not isinstance(error, MienError),
            )
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()
            self._wake.set()
        else:
            self._backoff.reset()
            self._current = wanted
