"""The encoder's way through the trellis: the symbols of least distortion and bits.

Of each position and quantiser there are four candidates, the nearest symbol, its neighbours and
zero; of each parity the one with the least

    BIT_WORTH · bits + (value − e)²

stays, and the Viterbi algorithm finds the cheapest way through the states of mien.trellis. A reader
knows nothing of it: any symbols are a way.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from mien.errors import EncodeError
from mien.tables import COST_UNIT, CdfTables
from mien.trellis import HALF_STEPS, NEXT, QUANTISERS, STATES

BIT_WORTH: Final = 0.06
"""Squared steps that a bit is worth."""
PARITIES: Final = 2
# Further than any symbol that is coded, so that those are refused and nothing overflows.
_FURTHEST = 1 << 20

# (2, STATES): of each state the two that lead there, and by which parity of the symbol.
_BEFORE, _PARITY = np.divmod(np.argsort(NEXT, kind="stable").reshape(STATES, 2).T, PARITIES)

Numbers = NDArray[np.float64]
Symbols = NDArray[np.int32]


def chosen(e: NDArray[np.float32], tables: CdfTables, kept: int = 0) -> Symbols:
    """Return symbols for faces' enhancements, float32 (N, C, H, W) in steps: int32, same shape.

    tables: the layer's. kept: the first positions, one at most, whose e is whole and stays.
    Raises EncodeError where e is not finite.
    """
    if not np.isfinite(e).all():
        raise EncodeError("an enhancement is not finite")
    flat = e.reshape(len(e), -1).astype(np.float64)
    rounded = np.rint(e).clip(-_FURTHEST, _FURTHEST).astype(np.int32)
    priors = [tables.best_prior(face, 0) for face in rounded]
    found = [_by_parity(flat, tables, priors, quantiser, kept) for quantiser in range(QUANTISERS)]
    symbols, losses = (np.stack(parts) for parts in zip(*found, strict=True))
    return _cheapest(symbols, losses).reshape(e.shape)


def _by_parity(
    e: Numbers, tables: CdfTables, priors: list[int], quantiser: int, kept: int
) -> tuple[Symbols, Numbers]:
    """Of each parity the best symbol, and what it loses: (PARITIES, L, N) each."""
    offset = quantiser / HALF_STEPS
    near = np.rint(e + np.sign(e) * offset).clip(-_FURTHEST, _FURTHEST).astype(np.int32)
    candidates = np.stack([near, near - 1, near + 1, np.zeros_like(near)])
    rows = np.stack([tables.first_rows(quantiser, prior) for prior in priors])
    bits = [tables.costs(symbols, rows) / COST_UNIT for symbols in candidates]
    missed = candidates - offset * np.sign(candidates) - e
    loss = BIT_WORTH * np.stack(bits) + missed**2
    loss[1:, :, :kept] = np.inf
    symbols, losses = [], []
    for parity in range(PARITIES):
        allowed = np.where((candidates & 1) == parity, loss, np.inf)
        best = allowed.argmin(axis=0)[None]
        symbols.append(np.take_along_axis(candidates, best, axis=0)[0].T)
        losses.append(np.take_along_axis(allowed, best, axis=0)[0].T)
    return np.stack(symbols), np.stack(losses)


def _cheapest(symbols: Symbols, losses: Numbers) -> Symbols:
    """The way through all states that loses the least: int32 (N, L).

    symbols, losses: of each quantiser and parity, (QUANTISERS, PARITIES, L, N).
    """
    _, _, positions, faces = losses.shape
    # (2, STATES, L, N): what each of the two ways to a state loses at each position.
    steps = losses[_BEFORE & 1, _PARITY]
    lost = np.full((STATES, faces), np.inf)
    lost[0] = 0
    came = np.empty((positions, STATES, faces), np.int8)
    for place in range(positions):
        one, other = lost[_BEFORE] + steps[:, :, place]
        came[place] = other < one
        lost = np.minimum(one, other)
    state, face = lost.argmin(axis=0), np.arange(faces)
    found = np.empty((faces, positions), np.int32)
    for place in range(positions - 1, -1, -1):
        way = came[place, state, face]
        before, parity = _BEFORE[way, state], _PARITY[way, state]
        found[:, place] = symbols[before & 1, parity, place, face]
        state = before
    return found
