"""A range coder on plain integers.

    value of the string:  0 ──────[low ──── value ──── low + range)────── 1
                                   each symbol keeps its share of the interval

The interval is held in 48 bits and leaves in words of 16, so it is at least 2^32 wide before a
symbol and a CDF of 16 bits divides it with a loss below 2^-16. Every number stays below 2^63 and
no float is used: the same bytes on every processor.

The end costs what it must: of all values inside the last interval the encoder writes the one with
the fewest bytes, strips trailing zero bytes, and the decoder reads zeros beyond the end. There is
exactly one string for any sequence of symbols, and `mien.range_decoder` refuses all others.

After G. N. N. Martin, "Range encoding", 1979, and Subbotin's and Schindler's coders.
"""

from collections.abc import Sequence
from math import log2
from typing import Protocol

PRECISION = 16
"""Bits of a CDF: the counts of a row sum to 2 ** PRECISION."""

TOTAL = 1 << PRECISION
WORD = 16
"""Bits that leave the state, or enter it, at once."""

STATE = 48
FULL = 1 << STATE
MASK = FULL - 1
NARROW = 1 << (STATE - WORD)
"""A narrower interval is widened by a word."""

STATE_WORDS = STATE // WORD
_STATE_BYTES = STATE // 8

MAX_SYMBOL = 32767
"""Largest magnitude of a symbol that an escape carries."""
MAX_ESCAPE_BITS = 17
"""Of distance + 1: a distance is at most 2 * (2 * MAX_SYMBOL) + 1."""

Row = tuple[Sequence[int], int]
"""The CDF of one position, and its offset.

cdf: cumulative counts, from 0 to TOTAL. Bins 0, 1, … stand for the symbols offset, offset + 1, …;
the last bin is the escape.
"""


class SymbolCoder(Protocol):
    """What the side information is written to."""

    def encode(self, low: int, high: int) -> None:
        """Code one symbol, whose share of 0..TOTAL is low..high."""

    def encode_bits(self, value: int, bits: int) -> None:
        """Code 0 <= value < 2 ** bits, every value being as likely."""


class RangeEncoder:
    """Codes symbols into the shortest string that names them."""

    def __init__(self) -> None:
        self._low = 0
        self._range = FULL
        self._body = bytearray()

    def encode(self, low: int, high: int) -> None:
        """Code one symbol, whose share of 0..TOTAL is low..high."""
        share = self._range >> PRECISION
        self._low += share * low
        self._range = share * (high - low)
        if self._range < NARROW:
            self._shift()

    def encode_bits(self, value: int, bits: int) -> None:
        """Code 0 <= value < 2 ** bits, every value being as likely."""
        while bits > 0:
            step = min(bits, WORD)
            bits -= step
            self._range >>= step
            self._low += self._range * ((value >> bits) & ((1 << step) - 1))
            if self._range < NARROW:
                self._shift()

    def encode_symbols(self, symbols: Sequence[int], rows: Sequence[Row]) -> None:
        """Code symbols, one by each row; every magnitude must be at most MAX_SYMBOL."""
        low, width = self._low, self._range
        for symbol, (cdf, offset) in zip(symbols, rows, strict=True):
            index, escape = symbol - offset, len(cdf) - 2
            escapes = not 0 <= index < escape
            if escapes:
                index = escape
            start = cdf[index]
            share = width >> 16
            low += share * start
            width = share * (cdf[index + 1] - start)
            if escapes or width < NARROW:
                self._low, self._range = low, width
                if width < NARROW:
                    self._shift()
                if escapes:
                    self._encode_escape(escape_distance(symbol, offset, escape))
                low, width = self._low, self._range
        self._low, self._range = low, width

    def finish(self) -> bytes:
        """End the string and return it."""
        value = shortest(self._low, self._range)
        if value >> STATE:
            self._carry()
        self._body += (value & MASK).to_bytes(_STATE_BYTES, "big")
        return bytes(self._body).rstrip(b"\0")

    def _encode_escape(self, distance: int) -> None:
        mantissa = distance + 1
        bits = mantissa.bit_length()
        for _ in range(bits - 1):
            self.encode_bits(0, 1)
        self.encode_bits(1, 1)
        self.encode_bits(mantissa - (1 << (bits - 1)), bits - 1)

    def _shift(self) -> None:
        low = self._low
        if low >> STATE:
            self._carry()
            low &= MASK
        self._body += (low >> (STATE - WORD)).to_bytes(2, "big")
        self._low = (low << WORD) & MASK
        self._range <<= WORD

    def _carry(self) -> None:
        position = len(self._body) - 1
        while self._body[position] == 0xFF:
            self._body[position] = 0
            position -= 1
        self._body[position] += 1


class BitCounter:
    """A SymbolCoder that only adds up what its symbols cost by their shares."""

    def __init__(self) -> None:
        self.bits = 0.0

    def encode(self, low: int, high: int) -> None:
        """Count one symbol, whose share of 0..TOTAL is low..high."""
        self.bits += PRECISION - log2(high - low)

    def encode_bits(self, value: int, bits: int) -> None:
        """Count a value of that many bits."""
        self.bits += bits


def escape_distance(symbol: int, offset: int, escape: int) -> int:
    """How far a symbol lies outside offset..offset + escape - 1, the sides taking turns.

    0, 2, 4, … above and 1, 3, 5, … below.
    """
    return 2 * (offset - 1 - symbol) + 1 if symbol < offset else 2 * (symbol - offset - escape)


def shortest(low: int, width: int) -> int:
    """Return the value in low..low + width - 1 with the most trailing zero bytes."""
    mask = MASK
    while (low + mask) & ~mask >= low + width:
        mask >>= 8
    return (low + mask) & ~mask
