"""The frozen integer CDFs by which a latent is coded: by (channel, row, column), and by what was.

Faces are aligned, so statistics differ by position, and a prior per position needs no side
information. Of a later face of a track each position has a row for each value of its symbol in
the face before, and other rows again by how much of the face has changed (`mien.stir`). The tables
are made once, at export, from the trained prior and from faces that move (`integer_cdf`); services
only read them, and no float decides how bytes are read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum, prod
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mien.errors import ManifestError, TablesError
from mien.npz import read_npz, write_npz
from mien.range_coder import MAX_SYMBOL, PRECISION, TOTAL, Row
from mien.stir import GIVEN

HOLD_UNIT = 1 / 64
HALF, LARGEST_HOLD = 32, 128
"""By half a symbol y is rounded; nothing is held that is two symbols off."""

_MAX_POSITIONS = 1 << 14
_MAX_ROWS = 1 << 16
_MAX_BINS = 1 << 12
_ARRAYS = {
    "cdf": ("<u4", 2),
    "sizes": ("<i4", 1),
    "offsets": ("<i4", 1),
    "shape": ("<i4", 1),
    "contexts": ("<i4", 3),
    "holds": ("<i4", 1),
}
_MAX_FILE_BYTES = 16 << 20


@dataclass(frozen=True, eq=False)
class CdfTables:
    """Integer CDFs for the L = C·H·W positions of a latent, in C order.

    The first L of R rows are those of a face that is told afresh, the others of later faces.

    cdf: uint32 (R, K + 1), cumulative counts of each row, from 0 to 65536; rows are padded with
        65536 behind their last bin.
    sizes: int32 (R,), bins of each row, from 2 to K. The last one is the escape, for all symbols
        that have no bin.
    offsets: int32 (R,), the symbol that bin 0 stands for; the others follow it.
    shape: (C, H, W).
    contexts: int32 (len(GIVEN), L, 3): for a face that has stirred so much, of each position the
        row for the lowest symbol before, the number of rows, and that lowest symbol. Lower and
        higher symbols have the first and the last of these rows.
    holds: int32 (L,), from HALF on: in HOLD_UNITs, how far y may be from the symbol before that
        stays, more where it matters less to the classifier. For the encoder alone (mien.holding).

    Raises TablesError when any of this does not hold.
    """

    cdf: NDArray[np.uint32]
    sizes: NDArray[np.int32]
    offsets: NDArray[np.int32]
    shape: tuple[int, int, int]
    contexts: NDArray[np.int32]
    holds: NDArray[np.int32]

    def __post_init__(self) -> None:
        _check(self.cdf, self.sizes, self.offsets, self.shape)
        _check_contexts(self.contexts, prod(self.shape), len(self.sizes))
        _check_holds(self.holds, prod(self.shape))
        for array in (self.cdf, self.sizes, self.offsets, self.contexts, self.holds):
            array.setflags(write=False)

    @classmethod
    def from_rows(
        cls,
        rows: Sequence[ArrayLike],
        offsets: Sequence[int],
        shape: tuple[int, int, int],
        contexts: ArrayLike | None = None,
        holds: ArrayLike | None = None,
    ) -> "CdfTables":
        """Make tables from CDFs as `integer_cdf` returns them.

        rows: R arrays of cumulative counts; the last bin of each is its escape.
        offsets: the symbol of bin 0 of each row.
        contexts: without, later faces have the rows of a face that is told afresh.
        holds: without, symbols are rounded.
        """
        cdfs = [np.asarray(row, np.uint32) for row in rows]
        cdf = np.full((len(cdfs), max(map(len, cdfs), default=0)), TOTAL, np.uint32)
        for index, row in enumerate(cdfs):
            cdf[index, : len(row)] = row
        sizes = np.array([len(row) - 1 for row in cdfs], np.int32)
        if contexts is None:
            contexts = afresh(prod(shape))
        if holds is None:
            holds = np.full(prod(shape), HALF)
        return cls(
            *(cdf, sizes, np.array(offsets, np.int32), shape),
            *(np.array(contexts, np.int32), np.array(holds, np.int32)),
        )

    @classmethod
    def load(cls, data: bytes) -> "CdfTables":
        """Read what `save` wrote. Raises TablesError for anything else."""
        try:
            arrays = read_npz(data, _ARRAYS, _MAX_FILE_BYTES)
        except ManifestError as error:
            raise TablesError(str(error)) from error
        if arrays["shape"].size != 3:
            raise TablesError(f"a latent has 3 dimensions, not {arrays['shape'].size}")
        channels, height, width = (int(size) for size in arrays["shape"].tolist())
        return cls(
            arrays["cdf"].astype(np.uint32),
            arrays["sizes"].astype(np.int32),
            arrays["offsets"].astype(np.int32),
            (channels, height, width),
            arrays["contexts"].astype(np.int32),
            arrays["holds"].astype(np.int32),
        )

    def save(self, path: Path) -> None:
        """Write the tables as .npz; equal tables give equal bytes."""
        arrays = {
            "cdf": self.cdf.astype("<u4"),
            "sizes": self.sizes.astype("<i4"),
            "offsets": self.offsets.astype("<i4"),
            "shape": np.array(self.shape, "<i4"),
            "contexts": self.contexts.astype("<i4"),
            "holds": self.holds.astype("<i4"),
        }
        path.write_bytes(write_npz(arrays))

    def rows(self) -> list[Row]:
        """Return the CDF and the offset of each row, without padding."""
        return [
            (cdf[: size + 1], offset)
            for cdf, size, offset in zip(
                self.cdf.tolist(), self.sizes.tolist(), self.offsets.tolist(), strict=True
            )
        ]

    def rows_given(self, before: NDArray[np.int32], stir: int) -> NDArray[np.int64]:
        """Return the row of each position of a later face, int64 (L,).

        before: int32 (C, H, W), the symbols of the face before; stir: one of GIVEN.
        """
        first, count, lowest = self.contexts[stir - GIVEN[0]].astype(np.int64).T
        return np.asarray(first + np.clip(before.ravel() - lowest, 0, count - 1))

    def ideal_bits(
        self, symbols: NDArray[np.int32], rows: NDArray[np.int64] | None = None
    ) -> float:
        """Return what symbols cost by these very tables, escapes included.

        symbols: int32 (..., C, H, W). rows: of each position; else those of faces told afresh.
        """
        row = np.arange(prod(self.shape)) if rows is None else rows
        flat = symbols.reshape(-1, len(row)).astype(np.int64)
        index = flat - self.offsets[row]
        escape = self.sizes[row].astype(np.int64) - 1
        outside = (index < 0) | (index >= escape)
        bins = np.where(outside, escape, index)
        counts = self.cdf[row, bins + 1].astype(np.float64) - self.cdf[row, bins]
        bits = float(np.sum(PRECISION - np.log2(counts)))
        distance = np.where(index < 0, -2 * index - 1, 2 * (index - escape))[outside]
        # Exp-Golomb of order 0: 2·floor(log2(distance + 1)) + 1 bits.
        return bits + float(np.sum(2 * np.floor(np.log2(distance + 1)) + 1))


def afresh(positions: int) -> NDArray[np.int32]:
    """Contexts by which later faces are coded as if nothing was known, int32 (…, positions, 3)."""
    own = np.stack([np.arange(positions), np.ones(positions), np.zeros(positions)], axis=-1)
    return np.repeat(own[None].astype(np.int32), len(GIVEN), axis=0)


def integer_cdf(pmf: ArrayLike) -> NDArray[np.uint32]:
    """Round a probability mass function to counts that sum to 65536, each at least 1.

    pmf: float64 (bins,), not negative, with a positive sum; for a row of tables the last bin is
        the escape, the probability of all symbols without a bin.
    Returns the cumulative counts, uint32 (bins + 1,), from 0 to 65536. The same floats give the
    same counts everywhere. Raises TablesError when there is no such rounding.
    """
    mass = np.asarray(pmf, np.float64)
    if mass.ndim != 1 or not 2 <= mass.size <= _MAX_BINS:
        raise TablesError(f"a pmf has 2 to {_MAX_BINS} bins in one dimension, not {mass.shape}")
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


def _check(
    cdf: NDArray[np.uint32],
    sizes: NDArray[np.int32],
    offsets: NDArray[np.int32],
    shape: tuple[int, int, int],
) -> None:
    positions = prod(shape)
    if len(shape) != 3 or min(shape) < 1 or positions > _MAX_POSITIONS:
        raise TablesError(f"a latent is (C, H, W) of 1 to {_MAX_POSITIONS} positions, not {shape}")
    if cdf.dtype != np.uint32 or sizes.dtype != np.int32 or offsets.dtype != np.int32:
        raise TablesError("tables are uint32 CDFs with int32 sizes and offsets")
    if cdf.ndim != 2 or not cdf.shape[:1] == sizes.shape == offsets.shape:
        raise TablesError("tables have as many sizes and offsets as rows")
    if not positions <= len(cdf) <= _MAX_ROWS:
        raise TablesError(f"{positions} positions have {positions} to {_MAX_ROWS} rows")
    bins = cdf.shape[1] - 1
    if not 2 <= bins <= _MAX_BINS or sizes.min() < 2 or sizes.max() > bins:
        raise TablesError(f"a row has 2 to {_MAX_BINS} bins, and no more than there are columns")
    used = np.arange(bins) < sizes[:, None]
    steps = np.diff(cdf.astype(np.int64), axis=1)
    if cdf[:, 0].any() or (cdf[:, -1] != TOTAL).any() or (steps < used).any():
        raise TablesError("a row must rise from 0 to 65536, by at least 1 a bin")
    if (steps[~used] != 0).any():
        raise TablesError("a row must be padded with 65536 behind its last bin")
    if offsets.min() < -MAX_SYMBOL or (offsets.astype(np.int64) + sizes - 2).max() > MAX_SYMBOL:
        raise TablesError(f"the symbols of the bins must be within ±{MAX_SYMBOL}")


def _check_holds(holds: NDArray[np.int32], positions: int) -> None:
    if holds.dtype != np.int32 or holds.shape != (positions,):
        raise TablesError(f"{positions} positions need as many holds, int32")
    if holds.min() < HALF or holds.max() > LARGEST_HOLD:
        raise TablesError(f"a hold is within {HALF}..{LARGEST_HOLD}")


def _check_contexts(contexts: NDArray[np.int32], positions: int, rows: int) -> None:
    if contexts.dtype != np.int32 or contexts.shape != (len(GIVEN), positions, 3):
        raise TablesError(f"contexts are int32 of {(len(GIVEN), positions, 3)}")
    first, count, lowest = contexts.astype(np.int64).transpose(2, 0, 1)
    if first.min() < 0 or count.min() < 1 or (first + count).max() > rows:
        raise TablesError(f"the rows of a context must be among the {rows} that there are")
    if np.abs(lowest).max() > MAX_SYMBOL:
        raise TablesError(f"the symbols of a context must be within ±{MAX_SYMBOL}")
