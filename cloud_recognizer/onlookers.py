"""Those who wait for a device's next chunk. Nothing is kept: a chunk that nobody waits for passes.

DeviceStream.receive ─offer─▶ Onlookers ─▶ whoever is in `next_payload`
"""

import asyncio
from collections import defaultdict
from typing import Final

from mien.errors import OverloadedError, UnavailableError

MAX_WAITING: Final = 16


class Onlookers:
    """At most MAX_WAITING wait at a time, for devices whose stream is at this recognizer."""

    def __init__(self) -> None:
        self._waiting: defaultdict[str, set[asyncio.Future[bytes]]] = defaultdict(set)

    def offer(self, device_id: str, payload: bytes) -> None:
        """A chunk of a device has come."""
        for waiter in self._waiting.pop(device_id, ()):
            if not waiter.done():
                waiter.set_result(payload)

    async def next_payload(self, device_id: str, patience_s: float) -> bytes:
        """The next chunk that the device sends.

        Raises UnavailableError when none comes in time, OverloadedError where too many wait.
        """
        if (waiting := sum(map(len, self._waiting.values()))) >= MAX_WAITING:
            raise OverloadedError(f"{waiting} wait for a chunk already")
        waiter: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[device_id].add(waiter)
        try:
            async with asyncio.timeout(patience_s):
                return await waiter
        except TimeoutError:
            raise UnavailableError(
                f"the device sent no chunk to this recognizer within {patience_s:g} seconds"
            ) from None
        finally:
            self._forget(device_id, waiter)

    def _forget(self, device_id: str, waiter: "asyncio.Future[bytes]") -> None:
        if device_id in self._waiting:
            self._waiting[device_id].discard(waiter)
            if not self._waiting[device_id]:
                del self._waiting[device_id]
