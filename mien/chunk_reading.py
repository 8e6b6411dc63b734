"""The body of a chunk, read, after mien.codec wrote it.

    words ─▶ start ─▶ number of faces ─▶ level ─▶ for each: read_fields, symbols ─▶ check_end

Functions on plain integers, as in mien.range_decoder. Whatever the words: they raise MalformedError
or say what only one string, the encoder's, can say. What state, tracks, fields and limits are,
mien.side_reading says.

    given   for each level, each of stir.GIVEN and each position, one behind another: the row for
            the lowest symbol before, how many rows come after it, and that symbol
    sizes   how many levels there are, how many priors, how many positions
    chosen  room for a row for each position of a later face, and all rows of first faces: those of
            each level and prior, one behind another
"""

from mien.errors import MalformedError
from mien.range_decoder import (
    Integers,
    Rows,
    State,
    check_end,
    enter,
    read_bin,
    read_bits,
    read_symbols,
)
from mien.side_reading import (
    BEFORE,
    FACE_FIELDS,
    HOW,
    LAST,
    LEVEL,
    NONE,
    STIR,
    STIR_MODELS,
    TRACK_FIELDS,
    read_choice,
    read_fields,
)
from mien.stir import AFRESH, ALL_AFRESH, BY_BEFORE, GIVEN, LARGEST, STILL
from mien.trellis import NEXT

Given = tuple[Integers, Integers, Integers]
Sizes = tuple[int, int, int]

_GIVEN = len(GIVEN)
_STIRS = STIR_MODELS[: -2 * _GIVEN]
# By how the face before was told, and the stir.
_TOLD = STIR_MODELS[-2 * _GIVEN :]
_FIRST_GIVEN = GIVEN[0]


def read_chunk(
    state: State,
    words: Integers,
    cdf: Integers,
    rows: Rows,
    given: Given,
    sizes: Sizes,
    chosen: tuple[State, Integers],
    limits: tuple[int, int, int],
    tracks: State,
    fields: State,
    symbols: State,
) -> None:
    """Read what follows the count, for as many faces as there is room for in fields.

    symbols gets the faces' latents, one behind another. Raises MalformedError.
    """
    positions = sizes[2]
    read_level(state, words, sizes)
    for face in range(len(fields) // FACE_FIELDS):
        read_fields(state, words, cdf, limits, tracks, fields, face)
        at = face * positions
        if state[BEFORE] == NONE:
            first = read_prior(state, words, sizes)
            first_rows = chosen[1][first : first + positions]
            read_symbols(state, words, cdf, rows, first_rows, symbols, at, 0)
        else:
            read_later(state, words, cdf, rows, given, sizes, chosen, tracks, symbols, at)
    check_end(state, words)


def read_layer(
    state: State,
    words: Integers,
    cdf: Integers,
    rows: Rows,
    sizes: Sizes,
    first_rows: Integers,
    there: State,
    symbols: State,
) -> None:
    """Read an enhancement layer of len(there) faces, and its end, as mien.layers writes it.

    there gets 1 for each face that has one, and 0; symbols its latents. The tables have the rows of
    the trellis' quantisers where others have those of quality levels. Raises MalformedError.
    """
    enter(state, words)
    state[LEVEL] = 0
    positions = sizes[2]
    for face in range(len(there)):
        there[face] = read_bits(state, words, 1)
        if there[face] == 1:
            first, step = read_prior(state, words, sizes), sizes[1] * positions
            at, trellis = face * positions, 0
            for place in range(positions):
                row = first + (trellis & 1) * step + place
                chosen = first_rows[row : row + 1]
                read_symbols(state, words, cdf, rows, chosen, symbols, at + place, 0)
                trellis = NEXT[2 * trellis + (symbols[at + place] & 1)]
    check_end(state, words)


def read_level(state: State, words: Integers, sizes: Sizes) -> None:
    """Read the chunk's quality level. Raises MalformedError."""
    state[LEVEL] = read_choice(state, words, sizes[0])


def read_prior(state: State, words: Integers, sizes: Sizes) -> int:
    """Read which prior a first face is coded by: its first row. Raises MalformedError."""
    prior = read_choice(state, words, sizes[1])
    return (state[LEVEL] * sizes[1] + prior) * sizes[2]


def read_later(
    state: State,
    words: Integers,
    cdf: Integers,
    rows: Rows,
    given: Given,
    sizes: Sizes,
    chosen: tuple[State, Integers],
    tracks: State,
    symbols: State,
    at: int,
) -> None:
    """Read the latent of a face that is not the first of its track. Raises MalformedError."""
    room, first_rows = chosen
    positions = sizes[2]
    before = state[BEFORE] * positions
    track = state[LAST] * TRACK_FIELDS
    stir = read_bin(state, words, cdf, _STIRS[tracks[track + STIR]])
    tracks[track + STIR] = stir
    last_how = tracks[track + HOW]
    if stir == STILL:
        tracks[track + HOW] = BY_BEFORE
        for place in range(positions):
            symbols[at + place] = symbols[before + place]
        return
    told = ALL_AFRESH
    if stir != AFRESH:
        told = read_bin(state, words, cdf, _TOLD[last_how * _GIVEN + stir - _FIRST_GIVEN])
    tracks[track + HOW] = told
    if told == ALL_AFRESH:
        first = read_prior(state, words, sizes)
        read_symbols(state, words, cdf, rows, first_rows[first : first + positions], symbols, at, 0)
    else:
        table = state[LEVEL] * len(GIVEN) + stir - _FIRST_GIVEN
        _choose(given, table * positions, room, symbols, before)
        read_symbols(state, words, cdf, rows, room, symbols, at, 0)
    changes = 0
    for place in range(positions):
        if symbols[at + place] != symbols[before + place]:
            changes += 1
    if changes <= LARGEST[stir - 1] or (stir != AFRESH and changes > LARGEST[stir]):
        raise MalformedError("a face has not changed as much as it says")


def _choose(given: Given, offset: int, room: State, symbols: State, before: int) -> None:
    firsts, furthest, lowest = given
    for place in range(len(room)):
        step = symbols[before + place] - lowest[offset + place]
        if step < 0:
            step = 0
        elif step > furthest[offset + place]:
            step = furthest[offset + place]
        room[place] = firsts[offset + place] + step
