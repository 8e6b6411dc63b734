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
    there is none. rows: int64 (L,) of the tables, None for those of a face told afresh.
    """

    stir: int
    before: int | None
    rows: NDArray[np.int64] | None


class TrackLatents:
    """The latest latent of each track of a chunk, and how it came."""

    def __init__(self, tables: CdfTables) -> None:
        self._tables = tables
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
            return Told(UNKNOWN, None, None)
        before, last_stir = latest
        stir = stir_of(int(np.count_nonzero(symbols != before)))
        given = stir not in (STILL, AFRESH)
        return Told(stir, last_stir, self._tables.rows_given(before, stir) if given else None)
