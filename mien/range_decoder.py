"""The range decoder: reads what mien.range_coder wrote.

Plain functions on plain integers in flat sequences. They run as they stand, on lists, and
`mien.compiled_reader` compiles these very functions, for arrays of int64; so they keep to what both
know. Whatever the words: they raise MalformedError where nothing can have been written, behind the
end they read zeros, and no integer leaves 64 bits.

    words   of 16 bits, the string
    state   CODE        the value, above the interval's lower end
            WIDTH       of the interval, from NARROW to FULL
            POSITION    of the next word
    cdf     CDFs one behind another, each cumulative counts from 0 to TOTAL
"""

from bisect import bisect_right
from collections.abc import MutableSequence, Sequence

from mien.errors import MalformedError
from mien.range_coder import (
    FULL,
    MASK,
    MAX_ESCAPE_BITS,
    MAX_SYMBOL,
    NARROW,
    PRECISION,
    STATE_WORDS,
    TOTAL,
    WORD,
    shortest,
)

CODE, WIDTH, POSITION = range(3)
DECODER_FIELDS = 3

Integers = Sequence[int]
State = MutableSequence[int]
Rows = tuple[Integers, Integers, Integers, Integers, Integers, Integers]
"""For each row of the tables: start, end and symbol of its most probable bin, the places of its
first and last count in cdf, and the symbol of bin 0. The last bin is the escape."""

OUTSIDE = "the coded string points outside of every symbol"
NOT_ITS_END = (
    "the coded string does not end where its content does: it was not written by this encoder"
)


def enter(state: State, words: Integers) -> None:
    """Set state to the beginning of a string."""
    code = 0
    for position in range(STATE_WORDS):
        code = code << WORD | _word(words, position)
    state[CODE] = code
    state[WIDTH] = FULL
    state[POSITION] = STATE_WORDS


def read_symbols(
    state: State,
    words: Integers,
    cdf: Integers,
    rows: Rows,
    chosen: Integers,
    symbols: State,
    at: int,
    begin: int,
) -> None:
    """Read a symbol by the row of each of chosen[begin:] to symbols[at + begin] and those behind.

    Raises MalformedError.
    """
    code, width, position, size = state[CODE], state[WIDTH], state[POSITION], len(words)
    starts, ends, modes, firsts, lasts, offsets = rows
    for place in range(begin, len(chosen)):
        row = chosen[place]
        share = width >> PRECISION
        low = share * starts[row]
        high = share * ends[row]
        symbol = modes[row]
        # Nearly every symbol is its row's most probable one; the others are searched for.
        if not low <= code < high:
            quotient = code // share
            if quotient >= TOTAL:
                raise MalformedError(OUTSIDE)
            first, last = firsts[row], lasts[row]
            index = bisect_right(cdf, quotient, first, last)
            low = share * cdf[index - 1]
            high = share * cdf[index]
            symbol = offsets[row] + index - 1 - first
            if index == last:
                state[CODE], state[WIDTH], state[POSITION] = code - low, high - low, position
                symbols[at + place] = read_escape(state, words, offsets[row], last - 1 - first)
                code, width, position = state[CODE], state[WIDTH], state[POSITION]
                continue
        symbols[at + place] = symbol
        code -= low
        width = high - low
        if width < NARROW:
            code = code << WORD | (words[position] if position < size else 0)
            width <<= WORD
            position += 1
    state[CODE], state[WIDTH], state[POSITION] = code, width, position


def read_escape(state: State, words: Integers, offset: int, escape: int) -> int:
    """Read the symbol that follows an escape: Exp-Golomb of order 0, sides taking turns."""
    if state[WIDTH] < NARROW:
        _shift(state, words)
    bits = 1
    while read_bits(state, words, 1) == 0:
        bits += 1
        if bits > MAX_ESCAPE_BITS:
            raise MalformedError("an escape claims more bits than any symbol needs")
    distance = (1 << (bits - 1) | read_bits(state, words, bits - 1)) - 1
    steps = distance >> 1
    symbol = offset - 1 - steps if distance & 1 else offset + escape + steps
    if abs(symbol) > MAX_SYMBOL:
        raise MalformedError("an escaped symbol lies beyond what an encoder takes")
    return symbol


def check_end(state: State, words: Integers) -> None:
    """Check that the words are those that the encoder writes for what was read.

    The decoder knows its words and how far they lie above low, hence low, hence the one ending
    that the encoder would have chosen. Zero bytes at the end are the caller's to refuse.
    """
    window = 0
    for position in range(state[POSITION] - STATE_WORDS, state[POSITION]):
        window = window << WORD | _word(words, position)
    expected = shortest((window - state[CODE]) & MASK, state[WIDTH]) & MASK
    if state[POSITION] < len(words) or window != expected:
        raise MalformedError(NOT_ITS_END)


def read_bin(state: State, words: Integers, cdf: Integers, model: tuple[int, int]) -> int:
    """Read one symbol by the counts from cdf[model[0]] = 0 to cdf[model[1]] = TOTAL: its bin."""
    first, last = model
    share = state[WIDTH] >> PRECISION
    quotient = state[CODE] // share
    if quotient >= TOTAL:
        raise MalformedError(OUTSIDE)
    index = bisect_right(cdf, quotient, first, last) - 1
    state[CODE] -= share * cdf[index]
    state[WIDTH] = share * (cdf[index + 1] - cdf[index])
    if state[WIDTH] < NARROW:
        _shift(state, words)
    return index - first


def read_bits(state: State, words: Integers, bits: int) -> int:
    """Read a value of that many bits, at most 62."""
    value = 0
    while bits > 0:
        step = bits if bits < WORD else WORD  # min() is a call
        bits -= step
        code, share = state[CODE], state[WIDTH] >> step
        piece = code // share
        if piece >> step:
            raise MalformedError(OUTSIDE)
        state[CODE], state[WIDTH] = code - piece * share, share
        value = value << step | piece
        if share < NARROW:
            _shift(state, words)
    return value


def _shift(state: State, words: Integers) -> None:
    position = state[POSITION]
    state[CODE] = state[CODE] << WORD | _word(words, position)
    state[WIDTH] <<= WORD
    state[POSITION] = position + 1


def _word(words: Integers, position: int) -> int:
    return words[position] if position < len(words) else 0
