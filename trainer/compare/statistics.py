"""How sure a figure is: bootstrap over faces, and McNemar's test for a single pair.

Efron, "Bootstrap Methods: Another Look at the Jackknife", Annals of Statistics 7, 1979. All
methods are measured on the same faces and resampled with the same weights, so that every
difference is a paired one.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class McNemar:
    """only_first, only_second: faces that just one of the two names rightly.

    p: exact, two-sided; how likely so uneven a split is if both are equally good.
    """

    only_first: int
    only_second: int
    p: float


def resampled_weights(faces: int, resamples: int = RESAMPLES, seed: int = 0) -> NDArray[np.float64]:
    """float64 (resamples, faces): how often each face is drawn, over faces; rows sum to 1."""
    draws = np.random.default_rng(seed).integers(0, faces, (resamples, faces))
    weights = np.empty((resamples, faces))
    for row, drawn in zip(weights, draws, strict=True):
        row[:] = np.bincount(drawn, minlength=faces)
    return weights / faces


def interval(draws: NDArray[np.float64], level: float = LEVEL) -> tuple[float, float] | None:
    """The central share of resampled figures (B,), NaN for one that a resample does not have.

    None where more than 1 in 20 has none: what is left would say too little.
    """
    known = draws[np.isfinite(draws)]
    if len(known) < 0.95 * len(draws):
        return None
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> McNemar:
    """McNemar's exact test (Psychometrika 12, 1947) over right or wrong of the same faces (N,)."""
    if first.shape != second.shape:
        raise ValueError(f"not the same faces: {first.shape} and {second.shape}")
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    return McNemar(only_first, only_second, _two_sided(only_first, only_second))


def _two_sided(heads: int, tails: int) -> float:
    """How likely a fair coin falls at least so unevenly."""
    tosses = heads + tails
    # Logarithms: 2 to the power of some thousand faces is no float.
    logs = [
        math.lgamma(tosses + 1) - math.lgamma(count + 1) - math.lgamma(tosses - count + 1)
        for count in range(min(heads, tails) + 1)
    ]
    return min(1.0, 2 * math.fsum(math.exp(log - tosses * math.log(2)) for log in logs))
