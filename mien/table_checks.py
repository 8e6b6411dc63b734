"""What tables must be before anything is coded by them, and how large they may be.

`CdfTables` says which array is of which shape.
"""

from math import prod

import numpy as np
from numpy.typing import NDArray

from mien.errors import TablesError
from mien.holding import HALF, LARGEST_HOLD
from mien.range_coder import MAX_SYMBOL, TOTAL
from mien.stir import GIVEN

MAX_POSITIONS = 1 << 14
MAX_ROWS = 1 << 18
MAX_LEVELS, MAX_PRIORS = 32, 16
MAX_BINS = 1 << 12


def check_rows(
    cdf: NDArray[np.uint32],
    sizes: NDArray[np.int32],
    offsets: NDArray[np.int32],
    shape: tuple[int, int, int],
) -> None:
    """Raises TablesError for rows that are no CDFs, and for a shape that has too many positions."""
    positions = prod(shape)
    if len(shape) != 3 or min(shape) < 1 or positions > MAX_POSITIONS:
        raise TablesError(f"a latent is (C, H, W) of 1 to {MAX_POSITIONS} positions, not {shape}")
    if cdf.dtype != np.uint32 or sizes.dtype != np.int32 or offsets.dtype != np.int32:
        raise TablesError("tables are uint32 CDFs with int32 sizes and offsets")
    if cdf.ndim != 1 or sizes.ndim != 1 or sizes.shape != offsets.shape:
        raise TablesError("tables have as many sizes and offsets as rows")
    if not positions <= len(sizes) <= MAX_ROWS:
        raise TablesError(f"{positions} positions have {positions} to {MAX_ROWS} rows")
    if sizes.min() < 2 or sizes.max() > MAX_BINS:
        raise TablesError(f"a row has 2 to {MAX_BINS} bins")
    ends = np.cumsum(sizes.astype(np.int64) + 1)
    if len(cdf) != ends[-1]:
        raise TablesError(f"rows of so many bins have {ends[-1]} counts, not {len(cdf)}")
    rises = cdf[1:] > cdf[:-1]
    rises[ends[:-1] - 1] = True  # from the end of a row to the next one's zero
    if cdf[0] or cdf[ends[:-1]].any() or (cdf[ends - 1] != TOTAL).any() or not rises.all():
        raise TablesError("a row must rise from 0 to 65536, by at least 1 a bin")
    if offsets.min() < -MAX_SYMBOL or (offsets.astype(np.int64) + sizes - 2).max() > MAX_SYMBOL:
        raise TablesError(f"the symbols of the bins must be within ±{MAX_SYMBOL}")


def check_priors(priors: int, positions: int, rows: int) -> None:
    """Raises TablesError without a row for each of so many priors; positions: of all levels."""
    if not 1 <= priors <= MAX_PRIORS or priors * positions > rows:
        raise TablesError(f"{rows} rows are too few for {priors} priors")


def check_gains(gains: NDArray[np.float32], shape: tuple[int, int, int]) -> None:
    """Raises TablesError for gains that do not multiply each channel at each level."""
    if gains.dtype != np.float32 or gains.ndim != 2 or gains.shape[1:] != shape[:1]:
        raise TablesError(f"gains are float32 of levels × {shape[0]} channels")
    if not 1 <= len(gains) <= MAX_LEVELS:
        raise TablesError(f"there are 1 to {MAX_LEVELS} levels, not {len(gains)}")
    if not np.isfinite(gains).all() or gains.min() <= 0:
        raise TablesError("gains are finite and positive")


def check_holds(holds: NDArray[np.int32], levels: int, positions: int) -> None:
    """Raises TablesError for holds of other positions, and for such that hold too much."""
    if holds.dtype != np.int32 or holds.shape != (levels, positions):
        raise TablesError(f"{positions} positions need as many holds, int32")
    if holds.min() < HALF or holds.max() > LARGEST_HOLD:
        raise TablesError(f"a hold is within {HALF}..{LARGEST_HOLD}")


def check_contexts(contexts: NDArray[np.int32], levels: int, positions: int, rows: int) -> None:
    """Raises TablesError for contexts of other positions, and for rows that are not there."""
    if contexts.dtype != np.int32 or contexts.shape != (levels, len(GIVEN), positions, 3):
        raise TablesError(f"contexts are int32 of {(levels, len(GIVEN), positions, 3)}")
    first, count, lowest = contexts.astype(np.int64).transpose(3, 0, 1, 2)
    if first.min() < 0 or count.min() < 1 or (first + count).max() > rows:
        raise TablesError(f"the rows of a context must be among the {rows} that there are")
    if np.abs(lowest).max() > MAX_SYMBOL:
        raise TablesError(f"the symbols of a context must be within ±{MAX_SYMBOL}")
