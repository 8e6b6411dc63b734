"""Viewable pictures from a chunk, where the operator allows them, and only so many at a time."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cloud_recognizer.metrics import Metrics
from cloud_recognizer.png import encode_grey
from cloud_recognizer.recognizer import Recognizer
from mien.errors import OverloadedError, ReconstructionDisabledError

MAX_RECONSTRUCTIONS: Final = 4


@dataclass(frozen=True, slots=True)
class Picture:
    """A synthetic picture of one face, made from its latent. png: 8 bits grey.

    layers: enhancement layers that it was made with.
    """

    index: int
    time_ms: int
    track_id: int
    png: bytes
    layers: int


class Reconstruction:
    """allowed: by settings and policy. Who hands pictures out writes that down, see `audit`."""

    def __init__(self, recognizer: Recognizer, metrics: Metrics, *, allowed: bool) -> None:
        self._recognizer = recognizer
        self._metrics = metrics
        self.allowed = allowed
        self._running = 0

    def check_allowed(self) -> None:
        """Raises ReconstructionDisabledError."""
        if not self.allowed:
            raise ReconstructionDisabledError(
                "this server makes no viewable faces; its operator can set allow_reconstruction"
            )

    async def pictures(self, payload: bytes, layers: Sequence[bytes]) -> list[Picture]:
        """A picture of each face of a chunk, made on a thread.

        Raises ReconstructionDisabledError, BitstreamError, and OverloadedError beyond
        MAX_RECONSTRUCTIONS at a time.
        """
        self.check_allowed()
        if self._running >= MAX_RECONSTRUCTIONS:
            raise OverloadedError(f"{self._running} reconstructions run already")
        self._running += 1
        work = asyncio.ensure_future(asyncio.to_thread(self._make, payload, layers))
        work.add_done_callback(self._done)
        # A cancelled call leaves its thread running, which must go on being counted.
        return await asyncio.shield(work)

    def _done(self, work: "asyncio.Future[list[Picture]]") -> None:
        self._running -= 1
        if not work.cancelled():
            work.exception()  # looked at, whether or not the call is still there to raise it

    def _make(self, payload: bytes, layers: Sequence[bytes]) -> list[Picture]:
        faces, shown, images = self._recognizer.reconstruct(payload, layers)
        self._metrics.reconstructions.inc(len(faces))
        return [
            Picture(index, face.time_ms, face.track_id, encode_grey(image), of_face)
            for index, (face, of_face, image) in enumerate(zip(faces, shown, images, strict=True))
        ]
