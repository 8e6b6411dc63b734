"""By which rows of the tables each face of a chunk is coded: the writer's side of `mien.stir`."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mien.stir import AFRESH, STILL, UNKNOWN, stir_of
from mien.tables import CdfTables


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """How one face is told.

    stir: UNKNOWN for a track's first face. before: the stir of the track's last face, None when
    there is none. prior: by which a face is told afresh, None for the others. rows: int64 (L,) of
    the tables, none for a face that is still.
    """

    stir: int
    before: int | None
    prior: int | None
    rows: NDArray[np.int64]


class TrackLatents:
    """The latest latent of each track of a chunk, at one quality level, and how it came."""

    def __init__(self, tables: CdfTables, level: int) -> None:
        self._tables, self._level = tables, level
        self._latest: dict[int, tuple[NDArray[np.int32], int]] = {}

    def tell(self, track_id: int, symbols: NDArray[np.int32]) -> Told:
        """Take the next face, symbols int32 (C, H, W)."""
        told = self._told(symbols, self._latest.get(track_id))
        self._latest[track_id] = symbols, told.stir
        return told

    def _told(
        self, symbols: NDArray[np.int32], latest: tuple[NDArray[np.int32], int] | None
    ) -> Told:
        if latest is None:
            return self._afresh(symbols, UNKNOWN, None)
        before, last_stir = latest
        stir = stir_of(int(np.count_nonzero(symbols != before)))
        if stir == AFRESH:
            return self._afresh(symbols, stir, last_stir)
        if stir == STILL:
            return Told(stir, last_stir, None, np.zeros(0, np.int64))
        return Told(stir, last_stir, None, self._tables.rows_given(before, stir, self._level))

    def _afresh(self, symbols: NDArray[np.int32], stir: int, last_stir: int | None) -> Told:
        prior = self._tables.best_prior(symbols, self._level)
        return Told(stir, last_stir, prior, self._tables.first_rows(self._level, prior))
