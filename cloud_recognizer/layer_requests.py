"""Who waits for the enhancement layers of a device's next chunk, and which devices to ask.

Reconstruct ─ wanted(device) ─▶ the device's stream ─ RequestLayers ─▶ device
            ◀──────────── offer(chunk with layers) ──┘

Nothing is kept: a chunk goes to those who wait when it comes, and is forgotten.
"""

import asyncio
from collections.abc import Callable

from mien.errors import LayersMissingError
from mien.messages import EncodedChunk


class LayerRequests:
    """The waiting of all devices. ask: wakes the streams of a device, and says whether any is."""

    def __init__(self, ask: Callable[[str], bool]) -> None:
        self._ask = ask
        self._waiting: dict[str, list[asyncio.Future[EncodedChunk]]] = {}

    def wanted(self, device_id: str) -> bool:
        """Whether somebody waits for this device."""
        return device_id in self._waiting

    async def next_of(self, device_id: str, timeout_s: float) -> EncodedChunk:
        """The next chunk of a device that has layers. Raises LayersMissingError."""
        future: asyncio.Future[EncodedChunk] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(device_id, []).append(future)
        try:
            if not self._ask(device_id):
                raise LayersMissingError("the device has no stream to this server")
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            raise LayersMissingError(
                f"no layers came within {timeout_s:g} s: nobody may be in view, or the device's "
                "owner has said never"
            ) from None
        finally:
            waiting = self._waiting[device_id]
            waiting.remove(future)
            if not waiting:
                del self._waiting[device_id]

    def offer(self, device_id: str, chunk: EncodedChunk) -> None:
        """Hand a chunk that came to those who wait for its layers."""
        if chunk.layers:
            for future in self._waiting.get(device_id, ()):
                if not future.done():
                    future.set_result(chunk)
