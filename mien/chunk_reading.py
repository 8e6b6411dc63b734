"""The body of a chunk, read, after mien.side_information and mien.range_coder wrote it.

    words ─▶ start ─▶ number of faces ─▶ for each: read_fields, read_symbols ─▶ check_end

Functions on plain integers, as in mien.range_decoder. Whatever the words: they raise MalformedError
or say what only one string, the encoder's, can say.

    state   of the range decoder, and
            STEP_MS     between the last two frames
            TRACKS      of this chunk, so far
            LAST        its track's index, of the face before
    tracks  TRACK_FIELDS for each track, in the order of their first faces: its id, the index of
            its last face, and the index of the track that came after it last time
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

STEP_MS, TRACKS, LAST = range(DECODER_FIELDS, DECODER_FIELDS + 3)
STATE_FIELDS, TRACK_FIELDS, FACE_FIELDS = DECODER_FIELDS + 3, 3, 6
_ID, _LAST_FACE, _FOLLOWER = range(TRACK_FIELDS)

SIDE_CDF = tuple(count for cdf in CDFS for count in cdf)
"""The side information's CDFs one behind another; a model is the places of its first and last."""
_MOVE, _RESIZE, _STEP, _TRACK, _STANDS_IF_NEW, _STANDS_IF_HERE, _STANDS_IF_EARLIER = (
    (first, end - 1) for first, end in pairwise(accumulate(map(len, CDFS), initial=0))
)


def read_chunk(
    state: State,
    words: Integers,
    cdf: Integers,
    rows: Rows,
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
        read_symbols(state, words, cdf, rows, symbols, face * positions, 0)
    check_end(state, words)


def start(state: State, words: Integers) -> int:
    """Set state to the string's beginning; return the number of faces that it declares."""
    enter(state, words)
    state[STEP_MS] = FIRST_STEP_MS
    state[TRACKS] = 0
    state[LAST] = 0
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
        time_ms = before_ms + _read_step(state, words, cdf, standing)
        tracks[state[LAST] * TRACK_FIELDS + _FOLLOWER] = track
    fields[at] = time_ms
    fields[at + 1] = tracks[track * TRACK_FIELDS + _ID]
    if track < known:
        last = tracks[track * TRACK_FIELDS + _LAST_FACE] * FACE_FIELDS
        _read_moved_box(state, words, cdf, fields, last, at)
    else:
        _read_first_box(state, words, fields, at)
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
    state[TRACKS] = known + 1
    return known


def _read_step(state: State, words: Integers, cdf: Integers, standing: tuple[int, int]) -> int:
    if read_bin(state, words, cdf, standing) == 0:
        return 0
    step_ms = state[STEP_MS] + _read_difference(state, words, cdf, _STEP)
    if step_ms < 1:
        raise MalformedError("time does not go forward")
    state[STEP_MS] = step_ms
    return step_ms


def _read_first_box(state: State, words: Integers, fields: State, at: int) -> None:
    for coordinate in range(at + 2, at + 4):
        value = _read_number(state, words, SHORT)
        fields[coordinate] = -value if value and read_bits(state, words, 1) else value
    for side in range(at + 4, at + 6):
        fields[side] = _read_number(state, words, SHORT)


def _read_moved_box(
    state: State, words: Integers, cdf: Integers, fields: State, last: int, at: int
) -> None:
    for coordinate in range(2, 4):
        moved = _read_difference(state, words, cdf, _MOVE)
        fields[at + coordinate] = fields[last + coordinate] + moved
    for side in range(4, 6):
        grown = _read_difference(state, words, cdf, _RESIZE)
        fields[at + side] = fields[last + side] + grown


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
