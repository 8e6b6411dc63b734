"""Reads bodies of chunks with nothing but numpy: one by one, or many in lockstep."""

from collections.abc import Sequence
from struct import unpack

import numpy as np

from mien.bitstream import Limits
from mien.chunk_reading import Given, read_chunk, read_layer
from mien.errors import BitstreamError
from mien.lockstep import Lane, Lockstep
from mien.range_decoder import Rows
from mien.reading import (
    WORD_BYTES,
    Contents,
    FlatTables,
    Layer,
    checked_count,
    contents,
    layer,
    limit_values,
    padded,
)
from mien.side_reading import LEVEL, STATE_FIELDS, start

MIN_LANES = 56
"""Chunks from which on lockstep is the faster way."""


class PlainReader:
    """Runs mien.chunk_reading as it is.

    min_lanes: chunks of a batch from which on their symbols are read in lockstep.
    """

    def __init__(self, tables: FlatTables, limits: Limits, min_lanes: int = MIN_LANES) -> None:
        self.name = "plain"
        self._shape, self._limits, self._min_lanes = tables.shape, limits, min_lanes
        self._cdf: list[int] = tables.cdf.tolist()
        starts, ends, modes, firsts, lasts, offsets = (row.tolist() for row in tables.rows)
        self._rows: Rows = (starts, ends, modes, firsts, lasts, offsets)
        first, furthest, lowest = (column.tolist() for column in tables.given)
        self._given: Given = (first, furthest, lowest)
        self._sizes = tables.sizes
        self._first_rows = list(range(tables.first_rows))
        self._lockstep = Lockstep(self._cdf, self._rows, self._given, self._sizes, min_lanes)

    def read(self, bodies: Sequence[bytes]) -> list[Contents | BitstreamError]:
        """Return for each body what it says, or why no encoder wrote it."""
        opened = [self._open(body) for body in bodies]
        lanes = [lane for lane in opened if isinstance(lane, Lane)]
        limits = limit_values(self._limits)
        if len(lanes) >= self._min_lanes:
            self._lockstep.read(lanes, limits)
        else:
            for lane in lanes:
                positions = self._sizes[2]
                lane.symbols = [0] * (lane.faces * positions)
                chosen = [0] * positions, self._first_rows
                lane.attempt(
                    read_chunk,
                    *(self._cdf, self._rows, self._given, self._sizes, chosen),
                    *(limits, lane.tracks, lane.fields, lane.symbols),
                )
        return [self._contents(lane) if isinstance(lane, Lane) else lane for lane in opened]

    def read_layer(self, body: bytes, faces: int) -> Layer | BitstreamError:
        """Return what a layer says of so many faces, or why no encoder wrote it."""
        state, there = [0] * STATE_FIELDS, [0] * faces
        symbols = [0] * (faces * self._sizes[2])
        try:
            data = padded(body)
            words = unpack(f">{len(data) // WORD_BYTES}H", data)
            tables = (self._cdf, self._rows, self._sizes, self._first_rows)
            read_layer(state, words, *tables, there, symbols)
        except BitstreamError as error:
            return error
        return layer(there, np.asarray(symbols, np.int32).reshape(faces, *self._shape))

    def _open(self, body: bytes) -> Lane | BitstreamError:
        state = [0] * STATE_FIELDS
        try:
            data = padded(body)
            words = unpack(f">{len(data) // WORD_BYTES}H", data)
            faces = checked_count(start(state, words, self._cdf), self._limits)
        except BitstreamError as error:
            return error
        return Lane(state, words, faces)

    def _contents(self, lane: Lane) -> Contents | BitstreamError:
        if lane.error is not None:
            return lane.error
        symbols = np.asarray(lane.symbols, np.int32)
        return contents(lane.fields, symbols.reshape(-1, *self._shape), lane.state[LEVEL])
