"""Quantising the later faces of a track: what is told stays until it has really been left.

An encoder's choice, of which a decoder knows nothing: rounding alone turns a latent that lies
between two integers into a symbol that changes with every frame's noise, and every change is paid.
"""

import numpy as np
from numpy.typing import NDArray

from mien.bitstream import Box
from mien.tables import HOLD_UNIT


def held(
    y: NDArray[np.float32], before: NDArray[np.int32], holds: NDArray[np.int32]
) -> NDArray[np.int32]:
    """The symbols of y, given those of the face before; (…, C, H, W) both.

    holds: of the tables, (C·H·W,).
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
