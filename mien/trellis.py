"""Trellis-coded quantisation: two quantisers, and the symbols so far say which of them is next.

    quantiser 0    2k           … −4  −2  0  2  4 …      in half steps
    quantiser 1    2k − sgn k   … −3  −1  0  1  3 …

Either is as coarse as rounding to whole steps, and its symbols k cost as much. But whoever chooses
them may lead into either, by the parity of the symbols before, so that a face is told by the best
of many sequences that together reach every half step (Marcellin and Fischer, 1990, "Trellis coded
quantization of memoryless and Gauss-Markov sources"; Schwarz et al., 2019, "Hybrid video coding
with trellis-coded quantization"). mien.trellis_choice finds that sequence; here is what reads it.
The first symbol is always of quantiser 0, so it stands for whole steps.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

QUANTISERS: Final = 2
HALF_STEPS: Final = 2
"""Of a step."""
STATES: Final = 8
NEXT: Final = (0, 2, 5, 7, 1, 3, 6, 4, 2, 0, 4, 6, 3, 1, 7, 5)
"""The state after state s and a symbol k, at 2·s + (k & 1). Quantiser s & 1 is that of state s."""


def quantisers(symbols: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return the quantiser of each symbol of faces: int64 (N, L) for int32 (N, L)."""
    found = []
    # Of one face, as devices and recognizers mostly have it, plain integers are the fastest.
    for parities in (symbols & 1).tolist():
        state, of_face = 0, []
        for parity in parities:
            of_face.append(state & 1)
            state = NEXT[2 * state + parity]
        found.append(of_face)
    return np.array(found, np.int64).reshape(symbols.shape)


def values(symbols: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return what symbols stand for, in half steps: int32 (N, L) for int32 (N, L)."""
    found = HALF_STEPS * symbols - np.sign(symbols) * quantisers(symbols)
    return np.asarray(found, np.int32)
