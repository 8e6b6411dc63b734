"""The encoder's choice of symbols: not the nearest, but the best value for its bits.

A decoder knows nothing of it. Each symbol of a face told afresh may be the one that y rounds to,
the next one towards zero, or zero, whichever has the least

    strength · bits + weight · (symbol − y)²

The weight of a position is how much an error there changes the classifier's answer, as the teacher
that it imitates would give it (`CdfTables.holds` keeps it), so this trades bits for the expected
answer and never looks at a label (Sullivan and Wiegand, 1998, "Rate-distortion optimization for
video compression").
"""

import numpy as np
from numpy.typing import NDArray

from mien.holding import HALF
from mien.tables import COST_UNIT, CdfTables


def chosen(
    y: NDArray[np.float32], tables: CdfTables, level: int, strength: float
) -> NDArray[np.int32]:
    """Symbols for y, float32 (C, H, W), already multiplied by its level's gains.

    strength: squared symbol steps that a bit is worth; 0 rounds.
    """
    rounded = np.rint(y).astype(np.int32)
    if not strength:
        return rounded
    prior = tables.best_prior(rounded, level)
    candidates = np.stack([rounded, rounded - np.sign(rounded), np.zeros_like(rounded)])
    costs = tables.costs(candidates, tables.first_rows(level, prior))
    bits = costs.reshape(candidates.shape) / COST_UNIT
    loss = strength * bits + _weights(tables, level) * (candidates - y) ** 2
    best = loss.argmin(axis=0)
    return np.asarray(np.take_along_axis(candidates, best[None], axis=0)[0])


def _weights(tables: CdfTables, level: int) -> NDArray[np.float64]:
    """What an error matters, by position, (C, H, W); 1 in the geometric mean.

    A hold beyond rounding is the inverse root of it.
    """
    past = tables.holds[level] - HALF + 1.0
    logarithm = np.log(past)
    weights: NDArray[np.float64] = np.exp(2 * (logarithm.mean() - logarithm))
    return weights.reshape(tables.shape)
