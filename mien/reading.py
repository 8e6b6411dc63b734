"""Bodies of chunks to integers, a batch at a time: what all ways of reading share.

    plain      mien.chunk_reading as it is, chunk after chunk, or of many chunks in lockstep
    compiled   the same functions, compiled by numba

Every way answers the same integers, or an error of the same class and words, for each chunk alone.
What is allocated is bounded by the limits before it is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mien.bitstream import Limits
from mien.chunk_reading import FACE_FIELDS, SIDE_CDF
from mien.errors import BitstreamError, LimitError, MalformedError
from mien.range_coder import WORD
from mien.range_decoder import NOT_ITS_END
from mien.tables import CdfTables

WORD_BYTES = WORD // 8

Array = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Contents:
    """What the body of a chunk says.

    fields: of each face time_ms, track_id and x, y, width and height of its box.
    symbols: int32 (faces, C, H, W), not writeable.
    """

    fields: list[list[int]]
    symbols: NDArray[np.int32]


class ChunkReader(Protocol):
    """Reads the bodies of a batch by the tables and the limits it was made for."""

    @property
    def name(self) -> str:
        """The way it reads, for logs and tables."""

    def read(self, bodies: Sequence[bytes]) -> list[Contents | BitstreamError]:
        """Return for each body what it says, or why no encoder wrote it."""


@dataclass(frozen=True, eq=False)
class FlatTables:
    """CDFs as mien.chunk_reading wants them: all one behind another, the side information's first.

    rows: of each row start, end and symbol of its most probable bin, the places of its first
        and last count in cdf, and the symbol of bin 0; int64 (R,) each.
    given: as mien.chunk_reading says; int64 (len(GIVEN)·L,) each.
    shape: (C, H, W).
    """

    cdf: Array
    rows: tuple[Array, Array, Array, Array, Array, Array]
    given: tuple[Array, Array, Array]
    shape: tuple[int, int, int]

    @property
    def positions(self) -> int:
        """How many symbols a face has."""
        return prod(self.shape)

    @classmethod
    def of(cls, tables: CdfTables) -> "FlatTables":
        """Lay the rows of a bundle's tables one behind another."""
        sizes = tables.sizes.astype(np.int64)
        cdf = tables.cdf.astype(np.int64)
        used = np.arange(cdf.shape[1]) <= sizes[:, None]
        lasts = len(SIDE_CDF) + np.cumsum(sizes + 1) - 1
        symbols = np.arange(cdf.shape[1] - 1) < sizes[:, None] - 1
        modes = np.where(symbols, np.diff(cdf, axis=1), 0).argmax(axis=1)
        row = np.arange(len(sizes))
        flat = np.concatenate([np.array(SIDE_CDF, np.int64), cdf[used]])
        starts, ends = cdf[row, modes], cdf[row, modes + 1]
        offsets = tables.offsets.astype(np.int64)
        rows = (starts, ends, offsets + modes, lasts - sizes, lasts, offsets)
        first, count, lowest = tables.contexts.astype(np.int64).reshape(-1, 3).T.copy()
        return cls(flat, rows, (first, count - 1, lowest), tables.shape)


ReaderKind = Callable[[FlatTables, Limits], ChunkReader]
"""What makes a reader."""


def padded(body: bytes) -> bytes:
    """A body of whole words, big-endian, its last one filled up with zeros. Raises MalformedError.

    A body that ends in a zero byte is refused here: the encoder leaves those out.
    """
    if body.endswith(b"\0"):
        raise MalformedError(NOT_ITS_END)
    return body + bytes(len(body) % WORD_BYTES)


def checked_count(count: int, limits: Limits) -> int:
    """The number of faces that a chunk declares. Raises LimitError, MalformedError."""
    if count > limits.max_faces:
        raise LimitError(
            f"the chunk declares {count} faces, at most {limits.max_faces} are allowed"
        )
    if count < 1:
        raise MalformedError("the chunk declares no face")
    return count


def limit_values(limits: Limits) -> tuple[int, int, int]:
    """The limits as mien.chunk_reading takes them."""
    return limits.max_time_ms, limits.max_track_id, limits.max_box_px


def contents(fields: list[int], symbols: NDArray[np.int32]) -> Contents:
    """What was read: fields one face behind another, symbols int32 (faces, C, H, W)."""
    symbols.setflags(write=False)
    starts = range(0, len(fields), FACE_FIELDS)
    return Contents([fields[at : at + FACE_FIELDS] for at in starts], symbols)
