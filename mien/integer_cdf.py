"""From probabilities to the integer counts of a row of tables; done once, at export."""

from math import fsum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mien.errors import TablesError
from mien.range_coder import TOTAL
from mien.table_checks import MAX_BINS


def integer_cdf(pmf: ArrayLike) -> NDArray[np.uint32]:
    """Round a probability mass function to counts that sum to 65536, each at least 1.

    pmf: float64 (bins,), not negative, with a positive sum; for a row of tables the last bin is
        the escape, the probability of all symbols without a bin.
    Returns the cumulative counts, uint32 (bins + 1,), from 0 to 65536. The same floats give the
    same counts everywhere. Raises TablesError when there is no such rounding.
    """
    mass = np.asarray(pmf, np.float64)
    if mass.ndim != 1 or not 2 <= mass.size <= MAX_BINS:
        raise TablesError(f"a pmf has 2 to {MAX_BINS} bins in one dimension, not {mass.shape}")
    total = fsum(mass.tolist())
    if not np.all(mass >= 0) or not 0 < total < float("inf"):
        raise TablesError("a pmf is finite, not negative, and has a positive sum")
    exact = mass / total * TOTAL
    counts = np.maximum(np.floor(exact).astype(np.int64), 1)
    missing = TOTAL - int(counts.sum())
    if missing > 0:
        counts[np.argsort(counts - exact, kind="stable")[:missing]] += 1
    while missing < 0:  # bins raised to 1 are paid by the largest, where a count is worth least
        largest = int(np.argmax(counts))
        paid = min(-missing, max(1, int(counts[largest]) // 64))
        counts[largest] -= paid
        missing += paid
    cdf = np.zeros(len(counts) + 1, np.uint32)
    np.cumsum(counts, out=cdf[1:], dtype=np.uint32)
    return cdf
