"""The body of a chunk, read, after mien.side_information and mien.range_coder wrote it.

    words ─▶ start ─▶ number of faces ─▶ for each: read_fields, read_latent ─▶ check_end

Functions on plain integers, as in mien.range_decoder. Whatever the words: they raise MalformedError
or say what only one string, the encoder's, can say.

    state   of the range decoder, and
            STEPS       of time since the first face
            TRACKS      of this chunk, so far
            LAST        its track's index, of the face whose fields were read last
            BEFORE      the index of the face before on this track, or NONE
    tracks  TRACK_FIELDS for each track, in the order of their first faces: its id, the index of
            its last face, the index of the track that came after it last time, and its last stir
    given   for each of stir.GIVEN and each position, one behind another: the row for the lowest
            symbol before, how many rows come after it, and that symbol
    chosen  a row for each position: room for those of a later face, and those of a first one
    fields  FACE_FIELDS for each face: time, track id, box
    limits  largest time, track id, and magnitude of a box's values
"""

from itertools import accumulate, pairwise

from mien.errors import MalformedError
from mien.range_decoder import (
    DECODER_FIELDS,
    Integers,
    Rows,
    State,
    check_end,
    enter,
    read_bin,
    read_bits,
    read_symbols,
)
from mien.side_information import CDFS, EXPECTED, FIRST_STEP_MS, LONG, NEW, SHORT
from mien.stir import AFRESH, GIVEN, LARGEST, STILL, UNKNOWN

STEPS, TRACKS, LAST, BEFORE = range(DECODER_FIELDS, DECODER_FIELDS + 4)
STATE_FIELDS, TRACK_FIELDS, FACE_FIELDS = DECODER_FIELDS + 4, 4, 6
NONE = -1
_ID, _LAST_FACE, _FOLLOWER, _STIR = range(TRACK_FIELDS)
Given = tuple[Integers, Integers, Integers]

SIDE_CDF = tuple(count for cdf in CDFS for count in cdf)
"""The side information's CDFs one behind another; a model is the places of its first and last."""
_PLACES = tuple((first, end - 1) for first, end in pairwise(accumulate(map(len, CDFS), initial=0)))
_MOVES, _MOVE, _RESIZE, _HEIGHT, _STEP, _FIRST_STEP, _TRACK = _PLACES[:7]
_STANDS_IF_NEW, _STANDS_IF_HERE, _STANDS_IF_EARLIER = _PLACES[7:10]
_STIRS = _PLACES[10:]
_FIRST_GIVEN = GIVEN[0]


def read_chunk(
    state: State,
    words: Integers,
    cdf: Integers,
    rows: Rows,
    given: Given,
    chosen: tuple[State, Integers],
    limits: tuple[int, int, int],
    tracks: State,
    fields: State,
    symbols: State,
) -> None:
    """Read what follows the count, for as many faces as there is room for in fields.

    symbols gets the faces' latents, one behind another. Raises MalformedError.
    """
    faces = len(fields) // FACE_FIELDS
    positions = len(symbols) // faces
    for face in range(faces):
        read_fields(state, words, cdf, limits, tracks, fields, face)
        at = face * positions
        if state[BEFORE] == NONE:
            read_symbols(state, words, cdf, rows, chosen[1], symbols, at, 0)
        else:
            read_later(state, words, cdf, rows, given, chosen, tracks, symbols, at)
    check_end(state, words)


def read_later(
    state: State,
    words: Integers,
    cdf: Integers,
    rows: Rows,
    given: Given,
    chosen: tuple[State, Integers],
    tracks: State,
    symbols: State,
    at: int,
) -> None:
    """Read the latent of a face that is not the first of its track. Raises MalformedError."""
    room, first_rows = chosen
    positions = len(first_rows)
    before = state[BEFORE] * positions
    track = state[LAST] * TRACK_FIELDS + _STIR
    stir = read_bin(state, words, cdf, _STIRS[tracks[track]])
    tracks[track] = stir
    if stir == STILL:
        for place in range(positions):
            symbols[at + place] = symbols[before + place]
        return
    if stir == AFRESH:
        read_symbols(state, words, cdf, rows, first_rows, symbols, at, 0)
    else:
        _choose(given, (stir - _FIRST_GIVEN) * positions, room, symbols, before)
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


def start(state: State, words: Integers) -> int:
    """Set state to the string's beginning; return the number of faces that it declares."""
    enter(state, words)
    state[STEPS] = 0
    state[TRACKS] = 0
    state[LAST] = 0
    state[BEFORE] = NONE
    return _read_number(state, words, SHORT)


def read_fields(
    state: State,
    words: Integers,
    cdf: Integers,
    limits: tuple[int, int, int],
    tracks: State,
    fields: State,
    face: int,
) -> None:
    """Read the next face's time, track and box. Raises MalformedError."""
    known = state[TRACKS]
    at = face * FACE_FIELDS
    if face == 0:
        track = _new_track(state, words, tracks)
        time_ms = _read_number(state, words, LONG)
    else:
        track = _read_track(state, words, cdf, tracks)
        before_ms = fields[at - FACE_FIELDS]
        standing = _STANDS_IF_NEW
        if track < known:
            seen_ms = fields[tracks[track * TRACK_FIELDS + _LAST_FACE] * FACE_FIELDS]
            standing = _STANDS_IF_HERE if seen_ms == before_ms else _STANDS_IF_EARLIER
        time_ms = before_ms + _read_step(state, words, cdf, standing, before_ms - fields[0])
        tracks[state[LAST] * TRACK_FIELDS + _FOLLOWER] = track
    fields[at] = time_ms
    fields[at + 1] = tracks[track * TRACK_FIELDS + _ID]
    if track < known:
        state[BEFORE] = tracks[track * TRACK_FIELDS + _LAST_FACE]
        _read_moved_box(state, words, cdf, fields, state[BEFORE] * FACE_FIELDS, at)
    else:
        state[BEFORE] = NONE
        _read_first_box(state, words, cdf, fields, at)
    _check_limits(limits, fields, at)
    tracks[track * TRACK_FIELDS + _LAST_FACE] = face
    state[LAST] = track


def _read_number(state: State, words: Integers, length_bits: int) -> int:
    bits = read_bits(state, words, length_bits)
    return 1 << (bits - 1) | read_bits(state, words, bits - 1) if bits else 0


def _read_difference(state: State, words: Integers, cdf: Integers, model: tuple[int, int]) -> int:
    bits = read_bin(state, words, cdf, model)
    if bits == 0:
        return 0
    top = 1 << (bits - 1)
    value = read_bits(state, words, bits)
    return -value if value >= top else top + value


def _read_track(state: State, words: Integers, cdf: Integers, tracks: State) -> int:
    form = read_bin(state, words, cdf, _TRACK)
    expected = tracks[state[LAST] * TRACK_FIELDS + _FOLLOWER]
    if form == EXPECTED:
        return expected
    if form == NEW:
        return _new_track(state, words, tracks)
    bits = 0
    while (state[TRACKS] - 1) >> bits:
        bits += 1
    track = read_bits(state, words, bits)
    if track >= state[TRACKS] or track == expected:
        raise MalformedError("a track is not told in its one form")
    return track


def _new_track(state: State, words: Integers, tracks: State) -> int:
    track_id = _read_number(state, words, LONG)
    known = state[TRACKS]
    for track in range(known):
        if tracks[track * TRACK_FIELDS + _ID] == track_id:
            raise MalformedError("a track is not told in its one form")
    tracks[known * TRACK_FIELDS + _ID] = track_id
    tracks[known * TRACK_FIELDS + _FOLLOWER] = known
    tracks[known * TRACK_FIELDS + _STIR] = UNKNOWN
    state[TRACKS] = known + 1
    return known


def _read_step(
    state: State, words: Integers, cdf: Integers, standing: tuple[int, int], passed_ms: int
) -> int:
    if read_bin(state, words, cdf, standing) == 0:
        return 0
    steps = state[STEPS]
    if steps == 0:
        step_ms = FIRST_STEP_MS + _read_difference(state, words, cdf, _FIRST_STEP)
    else:
        expected_ms = (passed_ms + steps // 2) // steps
        step_ms = expected_ms + _read_difference(state, words, cdf, _STEP)
    if step_ms < 1:
        raise MalformedError("time does not go forward")
    state[STEPS] = steps + 1
    return step_ms


def _read_first_box(state: State, words: Integers, cdf: Integers, fields: State, at: int) -> None:
    for coordinate in range(at + 2, at + 4):
        value = _read_number(state, words, SHORT)
        fields[coordinate] = -value if value and read_bits(state, words, 1) else value
    fields[at + 4] = _read_number(state, words, SHORT)
    fields[at + 5] = fields[at + 4] + _read_difference(state, words, cdf, _HEIGHT)


def _read_moved_box(
    state: State, words: Integers, cdf: Integers, fields: State, last: int, at: int
) -> None:
    for place in range(2, FACE_FIELDS):
        fields[at + place] = fields[last + place]
    if read_bin(state, words, cdf, _MOVES) == 0:
        return
    right = _read_difference(state, words, cdf, _MOVE)
    down = _read_difference(state, words, cdf, _MOVE)
    wider = _read_difference(state, words, cdf, _RESIZE)
    higher = wider + _read_difference(state, words, cdf, _HEIGHT)
    if right == 0 and down == 0 and wider == 0 and higher == 0:
        raise MalformedError("a box that stands is told as one that moves")
    fields[at + 2] += right
    fields[at + 3] += down
    fields[at + 4] += wider
    fields[at + 5] += higher


def _check_limits(limits: tuple[int, int, int], fields: State, at: int) -> None:
    max_time_ms, max_track_id, max_box_px = limits
    width, height = fields[at + 4], fields[at + 5]
    if (
        fields[at] > max_time_ms
        or fields[at + 1] > max_track_id
        or max(abs(fields[at + 2]), abs(fields[at + 3]), width, height) > max_box_px
        or min(width, height) < 1
    ):
        raise MalformedError("a face's time, track or box is outside of the limits")
