"""The functions of mien.range_decoder with their state, for tests of the coder alone."""

from collections.abc import Sequence
from struct import unpack

from mien.range_coder import Row
from mien.range_decoder import (
    DECODER_FIELDS,
    check_end,
    enter,
    read_bin,
    read_bits,
    read_symbols,
)
from mien.reading import FlatTables, padded
from mien.tables import CdfTables


class StringReader:
    """Reads one string; zero bytes at its end are refused by `finish`."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        data = body + bytes(len(body) % 2)
        self._words = unpack(f">{len(data) // 2}H", data)
        self._state = [0] * DECODER_FIELDS
        enter(self._state, self._words)

    def decode(self, cdf: Sequence[int]) -> int:
        return read_bin(self._state, self._words, cdf, (0, len(cdf) - 1))

    def decode_bits(self, bits: int) -> int:
        return read_bits(self._state, self._words, bits)

    def decode_symbols(self, rows: Sequence[Row]) -> list[int]:
        if not rows:
            return []
        cdfs, offsets = zip(*rows, strict=True)
        flat = FlatTables.of(CdfTables.from_rows(cdfs, offsets, (len(rows), 1, 1)))
        symbols = [0] * len(rows)
        columns = tuple(column.tolist() for column in flat.rows)
        chosen = range(len(rows))
        read_symbols(self._state, self._words, flat.cdf.tolist(), columns, chosen, symbols, 0, 0)
        return symbols

    def finish(self) -> None:
        padded(self._body)
        check_end(self._state, self._words)
