"""mien.chunk_reading compiled by numba, where that is installed: `pip install 'mien[fast]'`.

numba is not imported before a CompiledReader is made.
"""

import logging
from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from inspect import getsource
from types import FunctionType
from typing import Any

import numpy as np

from mien import (
    chunk_reading,
    range_coder,
    range_decoder,
    side_counts,
    side_information,
    side_reading,
    stir,
    trellis,
)
from mien.bitstream import Limits
from mien.chunk_reading import read_chunk, read_layer
from mien.errors import BitstreamError
from mien.plain_reader import PlainReader
from mien.range_coder import shortest
from mien.reading import (
    WORD_BYTES,
    ChunkReader,
    Contents,
    FlatTables,
    Layer,
    checked_count,
    contents,
    layer,
    limit_values,
    padded,
)
from mien.side_information import nearest_usual
from mien.side_reading import (
    FACE_FIELDS,
    LEVEL,
    STATE_FIELDS,
    TRACK_FIELDS,
    start,
)

_log = logging.getLogger(__name__)

_SOURCES = (
    *(range_coder, range_decoder, stir, side_counts, side_information, side_reading),
    *(chunk_reading, trellis),
)


def fastest_reader(tables: FlatTables, limits: Limits) -> ChunkReader:
    """A CompiledReader where numba is installed, a PlainReader where it is not."""
    return (PlainReader if find_spec("numba") is None else CompiledReader)(tables, limits)


class CompiledReader:
    """Reads chunk after chunk, without Python's lock. Raises ImportError where numba is absent."""

    def __init__(self, tables: FlatTables, limits: Limits) -> None:
        self.name = "compiled"
        self._start, self._read_chunk, self._read_layer = _entries()
        self._tables, self._limits = tables, limits
        self._values = limit_values(limits)
        self._first_rows = np.arange(tables.first_rows)

    def read(self, bodies: Sequence[bytes]) -> list[Contents | BitstreamError]:
        """Return for each body what it says, or why no encoder wrote it."""
        return [self._read(body) for body in bodies]

    def read_layer(self, body: bytes, faces: int) -> Layer | BitstreamError:
        """Return what a layer says of so many faces, or why no encoder wrote it."""
        tables = self._tables
        state, there = np.empty(STATE_FIELDS, np.int64), np.empty(faces, np.int64)
        symbols = np.zeros(faces * tables.positions, np.int32)
        try:
            words = np.frombuffer(padded(body), f">u{WORD_BYTES}").astype(np.int64)
            self._read_layer(
                *(state, words, tables.cdf, tables.rows, tables.sizes, self._first_rows),
                *(there, symbols),
            )
        except BitstreamError as error:
            return error
        return layer(there.tolist(), symbols.reshape(faces, *tables.shape))

    def _read(self, body: bytes) -> Contents | BitstreamError:
        tables = self._tables
        state = np.empty(STATE_FIELDS, np.int64)
        try:
            words = np.frombuffer(padded(body), f">u{WORD_BYTES}").astype(np.int64)
            faces = checked_count(self._start(state, words, tables.cdf), self._limits)
            tracks = np.empty(TRACK_FIELDS * faces, np.int64)
            fields = np.empty(FACE_FIELDS * faces, np.int64)
            symbols = np.empty(tables.positions * faces, np.int32)
            chosen = np.empty(tables.positions, np.int64), self._first_rows
            self._read_chunk(
                *(state, words, tables.cdf, tables.rows, tables.given, tables.sizes, chosen),
                *(self._values, tracks, fields, symbols),
            )
        except BitstreamError as error:
            return error
        symbols = symbols.reshape(faces, *tables.shape)
        return contents(fields.tolist(), symbols, int(state[LEVEL]))


@cache
def _entries() -> tuple[Callable[..., int], Callable[..., None], Callable[..., None]]:
    """`start`, `read_chunk` and `read_layer`; first calls compile them, or load what was."""
    from numba import njit
    from numba.extending import overload, register_jitable

    def search(cdf: Any, quotient: Any, first: Any, last: Any) -> Any:
        while first < last:
            middle = (first + last) >> 1
            if quotient < cdf[middle]:
                last = middle
            else:
                first = middle + 1
        return first

    @overload(bisect_right)
    def overloaded(cdf: Any, quotient: Any, first: Any, last: Any) -> Any:
        return search

    for module in (chunk_reading, side_reading, range_decoder):
        for function in vars(module).values():
            if isinstance(function, FunctionType) and function.__module__ == module.__name__:
                register_jitable(function)
    for function in (shortest, nearest_usual):
        register_jitable(function)

    # numba finds what it kept by a function's closure and file, not by what the function calls;
    # with the sources in the closure, other sources are another function.
    sources = "".join(map(getsource, _SOURCES))

    def start_string(state: Any, words: Any, cdf: Any) -> Any:
        sources  # noqa: B018
        return start(state, words, cdf)

    def read(state, words, cdf, rows, given, sizes, chosen, limits, tracks, fields, symbols):  # type: ignore[no-untyped-def]
        sources  # noqa: B018
        read_chunk(state, words, cdf, rows, given, sizes, chosen, limits, tracks, fields, symbols)

    def read_one_layer(state, words, cdf, rows, sizes, first_rows, there, symbols):  # type: ignore[no-untyped-def]
        sources  # noqa: B018
        read_layer(state, words, cdf, rows, sizes, first_rows, there, symbols)

    # Without numba's own reference counts: a function that raises never gives its own back, so each
    # chunk that is refused would keep its arrays for good. Nothing is allocated in there.
    settings: dict[str, Any] = {"nogil": True, "_nrt": False}
    try:
        keep = njit(cache=True, **settings)
        return keep(start_string), keep(read), keep(read_one_layer)
    except RuntimeError as error:  # there is no folder that may be written to
        _log.info("the chunk reader is compiled at every start: %s", error)
        compiled = njit(**settings)
        return compiled(start_string), compiled(read), compiled(read_one_layer)
