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
from mien.chunk_reading import Sizes
from mien.errors import BitstreamError, LimitError, MalformedError
from mien.range_coder import WORD
from mien.range_decoder import NOT_ITS_END
from mien.side_reading import FACE_FIELDS, SIDE_CDF
from mien.tables import CdfTables

WORD_BYTES = WORD // 8

Array = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Contents:
    """What the body of a chunk says.

    fields: of each face time_ms, track_id and x, y, width and height of its box.
    symbols: int32 (faces, C, H, W), not writeable.
    level: the chunk's quality level.
    """

    fields: list[list[int]]
    symbols: NDArray[np.int32]
    level: int


Layer = list[NDArray[np.int32] | None]
"""Of each face its latent, int32 (C, H, W), None where it has none."""


class ChunkReader(Protocol):
    """Reads the bodies of a batch by the tables and the limits it was made for."""

    @property
    def name(self) -> str:
        """The way it reads, for logs and tables."""

    def read(self, bodies: Sequence[bytes]) -> list[Contents | BitstreamError]:
        """Return for each body what it says, or why no encoder wrote it."""

    def read_layer(self, body: bytes, faces: int) -> Layer | BitstreamError:
        """Return what a layer says of so many faces, or why no encoder wrote it."""


@dataclass(frozen=True, eq=False)
class FlatTables:
    """CDFs as mien.chunk_reading wants them: all one behind another, the side information's first.

    rows: of each row start, end and symbol of its most probable bin, the places of its first
        and last count in cdf, and the symbol of bin 0; int64 (R,) each.
    given: as mien.chunk_reading says; int64 (levels·len(GIVEN)·L,) each.
    shape: (C, H, W).
    sizes: how many levels, priors and positions there are.
    """

    cdf: Array
    rows: tuple[Array, Array, Array, Array, Array, Array]
    given: tuple[Array, Array, Array]
    shape: tuple[int, int, int]
    sizes: Sizes

    @property
    def positions(self) -> int:
        """How many symbols a face has."""
        return self.sizes[2]

    @property
    def first_rows(self) -> int:
        """How many rows first faces have, of all levels and priors."""
        return prod(self.sizes)

    @classmethod
    def of(cls, tables: CdfTables) -> "FlatTables":
        """Lay the rows of a bundle's tables one behind another."""
        sizes = tables.sizes.astype(np.int64)
        flat = np.concatenate([np.array(SIDE_CDF, np.int64), tables.cdf.astype(np.int64)])
        firsts = len(SIDE_CDF) + tables.starts
        lasts = firsts + sizes
        modes = _most_probable(flat, firsts, lasts)
        offsets = tables.offsets.astype(np.int64)
        rows = (flat[modes], flat[modes + 1], offsets + modes - firsts, firsts, lasts, offsets)
        first, count, lowest = tables.contexts.astype(np.int64).reshape(-1, 3).T.copy()
        numbers = (tables.levels, tables.priors, prod(tables.shape))
        return cls(flat, rows, (first, count - 1, lowest), tables.shape, numbers)


def _most_probable(flat: Array, firsts: Array, lasts: Array) -> Array:
    """Of each row the place of its most probable bin, the first of those; no escape."""
    widths = np.diff(flat, append=0)[firsts[0] :]
    # Neither the last bin, which is the escape, nor what lies between two rows.
    widths[lasts - 1 - firsts[0]] = widths[lasts - firsts[0]] = 0
    starts = firsts - firsts[0]
    largest = np.repeat(np.maximum.reduceat(widths, starts), lasts - firsts + 1)
    places = np.where(widths == largest, np.arange(len(widths)), len(widths))
    return np.asarray(firsts[0] + np.minimum.reduceat(places, starts))


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


def layer(there: list[int], symbols: NDArray[np.int32]) -> Layer:
    """What was read of a layer: symbols int32 (faces, C, H, W)."""
    symbols.setflags(write=False)
    return [part if is_there else None for is_there, part in zip(there, symbols, strict=True)]


def contents(fields: list[int], symbols: NDArray[np.int32], level: int) -> Contents:
    """What was read: fields one face behind another, symbols int32 (faces, C, H, W)."""
    symbols.setflags(write=False)
    starts = range(0, len(fields), FACE_FIELDS)
    return Contents([fields[at : at + FACE_FIELDS] for at in starts], symbols, level)
