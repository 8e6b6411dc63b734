"""Who waits for the enhancement layers of a device's next chunk, and which devices to ask.

Reconstruct, LivePage ─ next_of(device) ─▶ the device's stream ─ RequestLayers ─▶ device
                      ◀──────────── offer(chunk with layers) ──┘

Nothing is kept: a chunk goes to those who wait when it comes, and is forgotten.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from typing import Final

from mien.errors import LayersMissingError, OverloadedError
from mien.messages.upward import EncodedChunk

MAX_WAITING: Final = 16


class LayerRequests:
    """At most MAX_WAITING wait at a time, for devices whose stream is at this recognizer.

    ask: wakes the streams of a device, and says whether there is any; who has the streams sets it.
    """

    def __init__(self) -> None:
        self.ask: Callable[[str], bool] = lambda _: False
        self._waiting: defaultdict[str, set[asyncio.Future[EncodedChunk]]] = defaultdict(set)

    async def next_of(self, device_id: str, timeout_s: float) -> EncodedChunk:
        """The next chunk of a device that has layers.

        Raises LayersMissingError when none comes in time, OverloadedError where too many wait.
        """
        if (waiting := sum(map(len, self._waiting.values()))) >= MAX_WAITING:
            raise OverloadedError(f"{waiting} wait for a device's layers already")
        waiter: asyncio.Future[EncodedChunk] = asyncio.get_running_loop().create_future()
        self._waiting[device_id].add(waiter)
        try:
            if not self.ask(device_id):
                raise LayersMissingError("the device has no stream to this recognizer")
            async with asyncio.timeout(timeout_s):
                return await waiter
        except TimeoutError:
            raise LayersMissingError(
                f"no layers came within {timeout_s:g} s: nobody may be in view, or the device's "
                "owner has said never"
            ) from None
        finally:
            self._forget(device_id, waiter)

    def offer(self, device_id: str, chunk: EncodedChunk) -> None:
        """Hand a chunk that came to those who wait for its layers."""
        if chunk.layers and device_id in self._waiting:
            for waiter in self._waiting[device_id]:
                if not waiter.done():
                    waiter.set_result(chunk)

    def _forget(self, device_id: str, waiter: "asyncio.Future[EncodedChunk]") -> None:
        if device_id in self._waiting:
            self._waiting[device_id].discard(waiter)
            if not self._waiting[device_id]:
                del self._waiting[device_id]
