"""Quantising the later faces of a track: a symbol stays until its latent has really left it.

An encoder's choice, of which a decoder knows nothing: rounding alone turns a latent that lies
between two integers into a symbol that changes with every frame's noise, and every change is paid.
"""

import numpy as np
from numpy.typing import NDArray

HOLD = 0.7
"""How far y may be from the symbol before that stays; by rounding it is 0.5."""


def held(y: NDArray[np.float32], before: NDArray[np.int32]) -> NDArray[np.int32]:
    """The symbols of y, given those of the face before; both are of any one shape."""
    stays = np.abs(y - before) <= HOLD
    return np.where(stays, before, np.rint(y)).astype(np.int32)
