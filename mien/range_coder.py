"""A range coder on plain integers.

    value of the string:  0 ──────[low ──── value ──── low + range)────── 1
                                   each symbol keeps its share of the interval

The interval is held in 48 bits and leaves in words of 16, so it is at least 2^32 wide before a
symbol and a CDF of 16 bits divides it with a loss below 2^-16. Every number stays below 2^63 and
no float is used: the same bytes on every processor, and compilable as it stands.

The end costs what it must: of all values inside the last interval the encoder writes the one with
the fewest bytes, strips trailing zero bytes, and the decoder reads zeros beyond the end. There is
exactly one string for any sequence of symbols, and `RangeDecoder.finish` refuses all others.

After G. N. N. Martin, "Range encoding", 1979, and Subbotin's and Schindler's coders.
"""

from bisect import bisect_right
from collections.abc import Sequence
from math import log2
from typing import Protocol

from mien.errors import MalformedError

PRECISION = 16
"""Bits of a CDF: the counts of a row sum to 2 ** PRECISION."""

TOTAL = 1 << PRECISION
_WORD = 16
_STATE = 48
_FULL = 1 << _STATE
_MASK = _FULL - 1
_NARROW = 1 << (_STATE - _WORD)
_STATE_BYTES = _STATE // 8
_STATE_WORDS = _STATE // _WORD

MAX_SYMBOL = 32767
"""Largest magnitude of a symbol that an escape carries."""
_MAX_ESCAPE_BITS = 17  # of distance + 1: a distance is at most 2 * (2 * MAX_SYMBOL) + 1


Row = tuple[list[int], int, int, int, int, int]
"""One CDF as the coding loops want it, made by `coding_row`."""


def coding_row(cdf: list[int], offset: int) -> Row:
    """Return cdf, offset, the escape's bin, and start, end and symbol of the most probable bin.

    cdf: cumulative counts, from 0 to TOTAL. Bins 0, 1, … stand for the symbols offset,
    offset + 1, …; the last bin is the escape.
    """
    escape = len(cdf) - 2
    mode = max(range(escape), key=lambda index: cdf[index + 1] - cdf[index])
    return cdf, offset, escape, cdf[mode], cdf[mode + 1], offset + mode


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
        self._range = _FULL
        self._body = bytearray()

    def encode(self, low: int, high: int) -> None:
        """Code one symbol, whose share of 0..TOTAL is low..high."""
        share = self._range >> PRECISION
        self._low += share * low
        self._range = share * (high - low)
        if self._range < _NARROW:
            self._shift()

    def encode_bits(self, value: int, bits: int) -> None:
        """Code 0 <= value < 2 ** bits, every value being as likely."""
        while bits > 0:
            step = min(bits, _WORD)
            bits -= step
            self._range >>= step
            self._low += self._range * ((value >> bits) & ((1 << step) - 1))
            if self._range < _NARROW:
                self._shift()

    def encode_symbols(self, symbols: Sequence[int], rows: Sequence[Row]) -> None:
        """Code symbols, one by each row; every magnitude must be at most MAX_SYMBOL."""
        low, width = self._low, self._range
        for symbol, (cdf, offset, escape, _, _, _) in zip(symbols, rows, strict=True):
            index = symbol - offset
            escapes = not 0 <= index < escape
            if escapes:
                index = escape
            start = cdf[index]
            share = width >> 16
            low += share * start
            width = share * (cdf[index + 1] - start)
            if escapes or width < _NARROW:
                self._low, self._range = low, width
                if width < _NARROW:
                    self._shift()
                if escapes:
                    self._encode_escape(escape_distance(symbol, offset, escape))
                low, width = self._low, self._range
        self._low, self._range = low, width

    def finish(self) -> bytes:
        """End the string and return it."""
        value = _shortest(self._low, self._range)
        if value >> _STATE:
            self._carry()
        self._body += (value & _MASK).to_bytes(_STATE_BYTES, "big")
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
        if low >> _STATE:
            self._carry()
            low &= _MASK
        self._body += (low >> (_STATE - _WORD)).to_bytes(2, "big")
        self._low = (low << _WORD) & _MASK
        self._range <<= _WORD

    def _carry(self) -> None:
        position = len(self._body) - 1
        while self._body[position] == 0xFF:
            self._body[position] = 0
            position -= 1
        self._body[position] += 1


class RangeDecoder:
    """Reads what RangeEncoder wrote; raises MalformedError where nothing can have been written."""

    def __init__(self, body: bytes) -> None:
        padded = body + bytes(len(body) & 1)
        self._ends_in_zero = body.endswith(b"\0")
        self._words = [int.from_bytes(padded[i : i + 2], "big") for i in range(0, len(padded), 2)]
        self._position = 0
        self._range = _FULL
        self._code = 0
        for _ in range(_STATE_WORDS):
            self._code = self._code << _WORD | self._next_word()

    def decode(self, cdf: Sequence[int]) -> int:
        """Return the index of the next symbol in a CDF, cumulative counts from 0 to TOTAL."""
        share = self._range >> PRECISION
        quotient = self._code // share
        if quotient >= TOTAL:
            raise _outside()
        index = bisect_right(cdf, quotient) - 1
        self._code -= share * cdf[index]
        self._range = share * (cdf[index + 1] - cdf[index])
        if self._range < _NARROW:
            self._shift()
        return index

    def decode_bits(self, bits: int) -> int:
        """Return the next value of that many bits."""
        value = 0
        while bits > 0:
            step = min(bits, _WORD)
            bits -= step
            self._range >>= step
            piece = self._code // self._range
            if piece >> step:
                raise _outside()
            self._code -= piece * self._range
            value = value << step | piece
            if self._range < _NARROW:
                self._shift()
        return value

    def decode_symbols(self, rows: Sequence[Row]) -> list[int]:
        """Return one symbol for each row."""
        symbols: list[int] = []
        append = symbols.append
        code, width = self._code, self._range
        for cdf, offset, escape, start, end, symbol in rows:
            share = width >> 16
            low, high = share * start, share * end
            # Nearly every symbol is its row's most probable one; the others are searched for.
            if not low <= code < high:
                quotient = code // share
                if quotient >= TOTAL:
                    raise _outside()
                index = bisect_right(cdf, quotient) - 1
                low, high = share * cdf[index], share * cdf[index + 1]
                symbol = offset + index
                if index == escape:
                    self._code, self._range = code - low, high - low
                    append(self._decode_escape(offset, escape))
                    code, width = self._code, self._range
                    continue
            append(symbol)
            code -= low
            width = high - low
            if width < _NARROW:
                self._code, self._range = code, width
                self._shift()
                code, width = self._code, self._range
        self._code, self._range = code, width
        return symbols

    def finish(self) -> None:
        """Check that the string is the one that the encoder writes for what was decoded.

        The decoder knows its bytes and how far they lie above low, hence low, hence the one
        ending that the encoder would have chosen.
        """
        window = 0
        for index in range(self._position - _STATE_WORDS, self._position):
            word = self._words[index] if index < len(self._words) else 0
            window = window << _WORD | word
        expected = _shortest((window - self._code) & _MASK, self._range) & _MASK
        if self._ends_in_zero or self._position < len(self._words) or window != expected:
            raise MalformedError(
                "the coded string does not end where its content does: "
                "it was not written by this encoder"
            )

    def _decode_escape(self, offset: int, escape: int) -> int:
        if self._range < _NARROW:
            self._shift()
        bits = 1
        while not self.decode_bits(1):
            bits += 1
            if bits > _MAX_ESCAPE_BITS:
                raise MalformedError(f"an escape claims more than {_MAX_ESCAPE_BITS} bits")
        distance = (1 << (bits - 1) | self.decode_bits(bits - 1)) - 1
        below, steps = distance & 1, distance >> 1
        symbol = offset - 1 - steps if below else offset + escape + steps
        if abs(symbol) > MAX_SYMBOL:
            raise MalformedError(f"an escaped symbol is {symbol}, beyond ±{MAX_SYMBOL}")
        return symbol

    def _shift(self) -> None:
        self._code = self._code << _WORD | self._next_word()
        self._range <<= _WORD

    def _next_word(self) -> int:
        position = self._position
        self._position = position + 1
        return self._words[position] if position < len(self._words) else 0


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


def _shortest(low: int, width: int) -> int:
    """Return the value in low..low + width - 1 with the most trailing zero bytes."""
    for kept in range(_STATE_BYTES + 1):
        mask = (1 << (_STATE - 8 * kept)) - 1
        value = (low + mask) & ~mask
        if value < low + width:
            break
    return value


def _outside() -> MalformedError:
    return MalformedError("the coded string points outside of every symbol")
