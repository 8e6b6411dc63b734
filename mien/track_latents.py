"""By which rows of the tables each face of a chunk is coded: the writer's side of `mien.stir`."""

from dataclasses import dataclass
from math import log2

import numpy as np
from numpy.typing import NDArray

from mien.range_coder import PRECISION
from mien.side_information import choice_bits
from mien.stir import (
    AFRESH,
    ALL_AFRESH,
    BY_BEFORE,
    GIVEN,
    STILL,
    TOLD,
    UNKNOWN,
    stir_of,
)
from mien.tables import CdfTables


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """How one face is told.

    stir: UNKNOWN for a track's first face. before: the stir of the track's last face, None when
    there is none, and how that was told. prior: by which a face is told afresh, None for the
    others. rows: int64 (L,) of the tables, none for a face that is still.
    """

    stir: int
    before: tuple[int, int] | None
    prior: int | None
    rows: NDArray[np.int64]

    @property
    def how(self) -> int:
        """BY_BEFORE or ALL_AFRESH, as it counts for the face after this one."""
        return BY_BEFORE if self.prior is None or self.before is None else ALL_AFRESH


class TrackLatents:
    """The latest latent of each track of a chunk, at one quality level, and how it came."""

    def __init__(self, tables: CdfTables, level: int) -> None:
        self._tables, self._level = tables, level
        self._latest: dict[int, tuple[NDArray[np.int32], Told]] = {}

    def tell(self, track_id: int, symbols: NDArray[np.int32]) -> Told:
        """Take the next face, symbols int32 (C, H, W)."""
        told = self._told(symbols, self._latest.get(track_id))
        self._latest[track_id] = symbols, told
        return told

    def _told(
        self, symbols: NDArray[np.int32], latest: tuple[NDArray[np.int32], Told] | None
    ) -> Told:
        if latest is None:
            return self._afresh(symbols, UNKNOWN, None)
        last_symbols, last = latest
        before = last.stir, last.how
        stir = stir_of(int(np.count_nonzero(symbols != last_symbols)))
        if stir == AFRESH:
            return self._afresh(symbols, stir, before)
        if stir == STILL:
            return Told(stir, before, None, np.zeros(0, np.int64))
        rows = self._tables.rows_given(last_symbols, stir, self._level)
        afresh = self._afresh(symbols, stir, before)
        by_before = self._tables.ideal_bits(symbols, rows) + _told_bits(stir, BY_BEFORE, last.how)
        prior_bits = choice_bits(self._tables.priors) + _told_bits(stir, ALL_AFRESH, last.how)
        if self._tables.ideal_bits(symbols, afresh.rows) + prior_bits < by_before:
            return afresh
        return Told(stir, before, None, rows)

    def _afresh(
        self, symbols: NDArray[np.int32], stir: int, before: tuple[int, int] | None
    ) -> Told:
        prior = self._tables.best_prior(symbols, self._level)
        return Told(stir, before, prior, self._tables.first_rows(self._level, prior))


def _told_bits(stir: int, told: int, before: int) -> float:
    """What it takes to say how a face of one of GIVEN is told."""
    counts = TOLD[before][stir - GIVEN[0]]
    return PRECISION - log2(counts[told + 1] - counts[told])
