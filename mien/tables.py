"""The frozen integer CDFs by which a latent is coded: by (channel, row, column), and by what was.

Faces are aligned, so statistics differ by position, and a prior per position needs no side
information. Each quality level has rows of its own, for it is quantised with gains of its own, and
a few priors that compete: a face that is told afresh says by which of them. Of a later face of a
track each position has a row for each value of its symbol in the face before, and other rows again
by how much of the face has changed (`mien.stir`). The tables are made once, at export, from
training faces and from such that move (`mien.integer_cdf`); services only read them, and no float
decides how bytes are read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mien.errors import EncodeError, ManifestError, SymbolRangeError, TablesError
from mien.holding import HALF
from mien.npz import read_npz, write_npz
from mien.range_coder import MAX_SYMBOL, PRECISION, Row
from mien.stir import GIVEN
from mien.table_checks import (
    check_contexts,
    check_gains,
    check_holds,
    check_priors,
    check_rows,
)

COST_UNIT = 4096

_ARRAYS = {
    "cdf": ("<u4", 1),
    "sizes": ("<i4", 1),
    "offsets": ("<i4", 1),
    "shape": ("<i4", 1),
    "contexts": ("<i4", 4),
    "holds": ("<i4", 2),
    "gains": ("<f4", 2),
    "priors": ("<i4", 1),
}
_MAX_FILE_BYTES = 64 << 20


@dataclass(frozen=True, eq=False)
class CdfTables:
    """Integer CDFs for the L = C·H·W positions of a latent, in C order, at N quality levels.

    The first N·P·L of R rows are those of faces that are told afresh, by level, prior and position;
    the others are of later faces.

    cdf: uint32, cumulative counts of each row, from 0 to 65536, one row behind another: they differ
        widely in length, and a device has no room for what would pad them.
    sizes: int32 (R,), bins of each row, at least 2: one less than it has counts. The last one is
        the escape, for all symbols that have no bin.
    offsets: int32 (R,), the symbol that bin 0 stands for; the others follow it.
    shape: (C, H, W).
    contexts: int32 (N, len(GIVEN), L, 3): for a face that has stirred so much, of each position the
        row for the lowest symbol before, the number of rows, and that lowest symbol. Lower and
        higher symbols have the first and the last of these rows.
    priors: P, how many compete.
    holds: int32 (N, L), from HALF on: in HOLD_UNITs, how far y may be from the symbol before that
        stays, more where it matters less to the classifier. For the encoder alone (mien.holding).
    gains: float32 (N, C), positive: what a latent's channels are multiplied by before they are
        rounded. For the encoder alone; networks that read symbols are told the level.

    Raises TablesError when any of this does not hold.
    """

    cdf: NDArray[np.uint32]
    sizes: NDArray[np.int32]
    offsets: NDArray[np.int32]
    shape: tuple[int, int, int]
    contexts: NDArray[np.int32]
    holds: NDArray[np.int32]
    gains: NDArray[np.float32]
    priors: int = 1

    def __post_init__(self) -> None:
        check_gains(self.gains, self.shape)
        check_rows(self.cdf, self.sizes, self.offsets, self.shape)
        check_priors(self.priors, self.levels * prod(self.shape), len(self.sizes))
        check_contexts(self.contexts, self.levels, prod(self.shape), len(self.sizes))
        check_holds(self.holds, self.levels, prod(self.shape))
        for array in (self.cdf, self.sizes, self.offsets, self.contexts, self.holds, self.gains):
            array.setflags(write=False)

    @property
    def levels(self) -> int:
        """How many quality levels there are, from the fewest bytes to the most."""
        return len(self.gains)

    @classmethod
    def from_rows(
        cls,
        rows: Sequence[ArrayLike],
        offsets: Sequence[int],
        shape: tuple[int, int, int],
        contexts: ArrayLike | None = None,
        holds: ArrayLike | None = None,
        gains: ArrayLike | None = None,
        priors: int = 1,
    ) -> "CdfTables":
        """Make tables from CDFs as `integer_cdf` returns them.

        rows: R arrays of cumulative counts; the last bin of each is its escape.
        offsets: the symbol of bin 0 of each row.
        contexts: without, later faces have the rows of a face that is told afresh.
        holds: without, symbols are rounded.
        gains: without, there is one level, whose gains are 1.
        """
        levels = np.ones((1, shape[0])) if gains is None else np.asarray(gains)
        cdfs = [np.asarray(row, np.uint32) for row in rows]
        cdf = np.concatenate(cdfs or [np.zeros(0, np.uint32)])
        sizes = np.array([len(row) - 1 for row in cdfs], np.int32)
        if contexts is None:
            contexts = afresh(len(levels), priors, prod(shape))
        if holds is None:
            holds = np.full((len(levels), prod(shape)), HALF)
        return cls(
            *(cdf, sizes, np.array(offsets, np.int32), shape, np.array(contexts, np.int32)),
            *(np.array(holds, np.int32), np.array(levels, np.float32), priors),
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
        if arrays["priors"].size != 1:
            raise TablesError("tables have one number of priors")
        return cls(
            arrays["cdf"].astype(np.uint32, copy=False),
            arrays["sizes"].astype(np.int32, copy=False),
            arrays["offsets"].astype(np.int32, copy=False),
            (channels, height, width),
            arrays["contexts"].astype(np.int32, copy=False),
            arrays["holds"].astype(np.int32, copy=False),
            arrays["gains"].astype(np.float32, copy=False),
            int(arrays["priors"][0]),
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
            "gains": self.gains.astype("<f4"),
            "priors": np.array([self.priors], "<i4"),
        }
        path.write_bytes(write_npz(arrays))

    def row(self, index: int) -> Row:
        """Return the CDF and the offset of a row, as the coder wants it.

        Kept once made: a device meets few of them, and lists of all are large.
        """
        if index not in self._met:
            self._met[index] = self.counts(index).tolist(), int(self.offsets[index])
        return self._met[index]

    def counts(self, index: int) -> NDArray[np.uint32]:
        """Return the cumulative counts of a row, uint32 (bins + 1,)."""
        first = self.starts[index]
        return self.cdf[first : first + self.sizes[index] + 1]

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Where in cdf each row begins, int64 (R,)."""
        lengths = self.sizes.astype(np.int64) + 1
        return np.asarray(np.cumsum(lengths) - lengths)

    @cached_property
    def _met(self) -> dict[int, Row]:
        return {}

    def rows(self) -> list[Row]:
        """Return every row."""
        return [self.row(index) for index in range(len(self.sizes))]

    def rows_given(self, before: NDArray[np.int32], stir: int, level: int = 0) -> NDArray[np.int64]:
        """Return the row of each position of a later face, int64 (L,).

        before: int32 (C, H, W), the symbols of the face before; stir: one of GIVEN.
        """
        first, count, lowest = self.contexts[level, stir - GIVEN[0]].astype(np.int64).T
        return np.asarray(first + np.clip(before.ravel() - lowest, 0, count - 1))

    def first_row(self, level: int, prior: int) -> int:
        """Return the first of the rows of a face told afresh, which follow each other."""
        return (level * self.priors + prior) * prod(self.shape)

    def first_rows(self, level: int, prior: int) -> NDArray[np.int64]:
        """Return the row of each position of a face told afresh, int64 (L,)."""
        first = self.first_row(level, prior)
        return np.arange(first, first + prod(self.shape))

    def check_symbols(self, symbols: NDArray[np.int32]) -> None:
        """Raises EncodeError for symbols that are not int32 (C, H, W), or that no escape carries.

        It is a SymbolRangeError for those beyond ±32767.
        """
        if symbols.shape != self.shape or symbols.dtype != np.int32:
            raise EncodeError(
                f"symbols must be int32 of shape {self.shape}, not {symbols.dtype} of "
                f"{symbols.shape}"
            )
        if symbols.max() > MAX_SYMBOL or symbols.min() < -MAX_SYMBOL:
            raise SymbolRangeError(
                f"symbols must be within ±{MAX_SYMBOL}, "
                f"these are within {symbols.min()}..{symbols.max()}: is the face's latent finite?"
            )

    def best_prior(self, symbols: NDArray[np.int32], level: int) -> int:
        """Return the prior by which symbols, int32 (C, H, W), cost the least; ties to the first."""
        if self.priors == 1:
            return 0
        first, end = self.first_row(level, 0), self.first_row(level, self.priors)
        rows = np.arange(first, end).reshape(self.priors, -1)
        return int(self.costs(symbols, rows).sum(axis=1).argmin())

    def costs(self, symbols: NDArray[np.int32], rows: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return what each symbol costs, int32 (N, L) in 1/COST_UNIT bits.

        symbols: int32 (..., C, H, W), N in all. rows: of each position, int64 (L,), or for one
        latent several, (N, L). An escape costs what its bin does here, and not the bits behind it.
        """
        bits, _ = self._bin_bits(symbols, rows)
        return np.asarray(np.rint(bits * COST_UNIT), np.int32)

    def ideal_bits(self, symbols: NDArray[np.int32], rows: NDArray[np.int64]) -> float:
        """Return what symbols cost by these very tables, escapes included.

        symbols: int32 (..., C, H, W). rows: of each position, int64 (L,).
        """
        bits, distance = self._bin_bits(symbols, rows)
        # Exp-Golomb of order 0: 2·floor(log2(distance + 1)) + 1 bits.
        return float(bits.sum()) + float(np.sum(2 * np.floor(np.log2(distance + 1)) + 1))

    def _bin_bits(
        self, symbols: NDArray[np.int32], rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """The bits of each symbol's bin, (N, L), and the distances that escapes tell besides."""
        index = symbols.reshape(-1, rows.shape[-1]).astype(np.int64) - self.offsets[rows]
        escape = self.sizes[rows].astype(np.int64) - 1
        outside = (index < 0) | (index >= escape)
        bins = np.where(outside, escape, index)
        places = self.starts[rows] + bins
        counts = self.cdf[places + 1].astype(np.float64) - self.cdf[places]
        distance = np.where(index < 0, -2 * index - 1, 2 * (index - escape))[outside]
        return PRECISION - np.log2(counts), distance


def afresh(levels: int, priors: int, positions: int) -> NDArray[np.int32]:
    """Contexts by which later faces are coded by the first prior, as if nothing was known."""
    contexts = np.zeros((levels, len(GIVEN), positions, 3), np.int32)
    contexts[..., 1] = 1
    for level in range(levels):
        contexts[level, ..., 0] = level * priors * positions + np.arange(positions)
    return contexts
