"""Quantising the later faces of a track: what is told stays until it has really been left.

An encoder's choice, of which a decoder knows nothing: rounding alone turns a latent that lies
between two integers into a symbol that changes with every frame's noise, and every change is paid.
"""

import numpy as np
from numpy.typing import NDArray

from mien.bitstream import Box

HOLD_UNIT = 1 / 64
HALF, LARGEST_HOLD = 32, 128
"""By half a symbol y is rounded; nothing is held that is two symbols off."""


def quantised(y: NDArray[np.float32], gains: NDArray[np.float32]) -> NDArray[np.int32]:
    """The symbols of y, float32 (…, C, H, W), by gains, float32 (C,), or (N, C) for each face."""
    return np.rint(y * gains[..., None, None]).astype(np.int32)


def held(
    y: NDArray[np.float32], before: NDArray[np.int32], holds: NDArray[np.int32]
) -> NDArray[np.int32]:
    """The symbols of y, already multiplied by its gains, given those of the face before.

    (…, C, H, W) both. holds: of the tables and a level, (C·H·W,).
    """
    stays = np.abs(y - before) <= (holds * HOLD_UNIT).reshape(y.shape[-3:])
    return np.where(stays, before, np.rint(y)).astype(np.int32)


BOX_STEP = 12
"""A box stays until one of its values is off by more than its longer side over this."""


def held_box(box: Box, before: Box) -> Box:
    """The box to tell of a face whose track was told to be at `before`."""
    off = max(
        *(abs(box.x - before.x), abs(box.y - before.y)),
        *(abs(box.width - before.width), abs(box.height - before.height)),
    )
    return before if off * BOX_STEP <= max(before.width, before.height) else box
