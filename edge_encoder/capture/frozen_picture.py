"""Noticing that a camera sends one and the same picture."""

import zlib
from typing import Any, Final

import numpy as np
import numpy.typing as npt

# A picture is looked at so often at most: the checksum of a 1080p frame takes about 2 ms.
LOOK_S: Final = 0.5


class FrozenPicture:
    """Compares pictures over time, to the last bit.

    A sensor's noise makes every picture another one, even of an empty room at night, so pictures
    that stay identical come from something that has stopped looking.

    limit_s: how long they may stay so; 0 allows it for ever.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._checksum: int | None = None
        self._same_since_s = 0.0
        self._looked_s = 0.0

    def same_for_s(self, image: npt.NDArray[Any], now_s: float) -> float | None:
        """Seconds that this picture has been the only one, once they reach the limit; else None.

        It is remembered over a reopening: a camera that comes back with the picture that it left
        with is still frozen.
        """
        if not self._limit_s:
            return None
        if self._checksum is not None and now_s - self._looked_s < LOOK_S:
            return None
        self._looked_s = now_s
        checksum = zlib.crc32(np.ascontiguousarray(image).data)
        if checksum != self._checksum:
            self._checksum, self._same_since_s = checksum, now_s
        same_s = now_s - self._same_since_s
        return same_s if same_s >= self._limit_s else None
