"""Time, track and box of the faces of a chunk, read, after mien.side_information wrote them.

Functions on plain integers, as in mien.range_decoder. Whatever the words: they raise MalformedError
or say what only one string, the encoder's, can say.

    state   of the range decoder, and
            STEPS       of time since the first face
            EVEN        1 where the last of them was as expected
            TRACKS      of this chunk, so far
            LAST        its track's index, of the face whose fields were read last
            BEFORE      the index of the face before on this track, or NONE
            LEVEL       the chunk's quality level
    tracks  TRACK_FIELDS for each track, in the order of their first faces: its id, the index of
            its last face, the index of the track that came after it last time, and its last stir
            and how that was told
    fields  FACE_FIELDS for each face: time, track id, box
    limits  largest time, track id, and magnitude of a box's values
"""

from itertools import accumulate, pairwise

from mien.errors import MalformedError
from mien.range_decoder import (
    DECODER_FIELDS,
    Integers,
    State,
    enter,
    read_bin,
    read_bits,
)
from mien.side_counts import CDFS, USUAL_STEPS_MS
from mien.side_information import EXPECTED, NEW, nearest_usual
from mien.stir import BY_BEFORE, UNKNOWN

STEPS, EVEN, TRACKS, LAST, BEFORE, LEVEL = range(DECODER_FIELDS, DECODER_FIELDS + 6)
STATE_FIELDS, TRACK_FIELDS, FACE_FIELDS = DECODER_FIELDS + 6, 5, 6
NONE = -1
_ID, _LAST_FACE, _FOLLOWER, STIR, HOW = range(TRACK_FIELDS)

SIDE_CDF = tuple(count for cdf in CDFS for count in cdf)
"""The side information's CDFs one behind another; a model is the places of its first and last."""
_PLACES = tuple((first, end - 1) for first, end in pairwise(accumulate(map(len, CDFS), initial=0)))
_MOVES, _MOVE, _RESIZE, _HEIGHT, _STEP, _EVEN_STEP, _USUAL, _FROM_USUAL = _PLACES[:8]
_TRACK, _FROM_NEXT_ID, _STANDS_IF_NEW, _STANDS_IF_HERE, _STANDS_IF_EARLIER = _PLACES[8:13]
_COUNT, _FIRST_ID, _FIRST_TIME, _PLACE, _SIDE, _OUTSIDE = _PLACES[13:19]
STIR_MODELS = _PLACES[19:]
"""Of mien.stir: STIRS, and behind them TOLD."""


def start(state: State, words: Integers, cdf: Integers) -> int:
    """Set state to the string's beginning; return the number of faces that it declares.

    Raises MalformedError.
    """
    enter(state, words)
    state[STEPS] = 0
    state[EVEN] = 0
    state[TRACKS] = 0
    state[LAST] = 0
    state[BEFORE] = NONE
    state[LEVEL] = 0
    return _read_number(state, words, cdf, _COUNT)


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
        track = _new_track(state, tracks, _read_number(state, words, cdf, _FIRST_ID))
        time_ms = _read_number(state, words, cdf, _FIRST_TIME)
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


def read_choice(state: State, words: Integers, of: int) -> int:
    """Read one of so many that are as likely. Raises MalformedError."""
    bits = 0
    while (of - 1) >> bits:
        bits += 1
    choice = read_bits(state, words, bits)
    if choice >= of:
        raise MalformedError("the chunk names a level, a prior or a track that there is not")
    return choice


def _read_number(state: State, words: Integers, cdf: Integers, model: tuple[int, int]) -> int:
    bits = read_bin(state, words, cdf, model)
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
        next_id = tracks[_ID]
        for known in range(1, state[TRACKS]):
            next_id = max(next_id, tracks[known * TRACK_FIELDS + _ID])
        next_id += 1 + _read_difference(state, words, cdf, _FROM_NEXT_ID)
        return _new_track(state, tracks, next_id)
    track = read_choice(state, words, state[TRACKS])
    if track == expected:
        raise MalformedError("a track is not told in its one form")
    return track


def _new_track(state: State, tracks: State, track_id: int) -> int:
    known = state[TRACKS]
    for track in range(known):
        if tracks[track * TRACK_FIELDS + _ID] == track_id:
            raise MalformedError("a track is not told in its one form")
    tracks[known * TRACK_FIELDS + _ID] = track_id
    tracks[known * TRACK_FIELDS + _FOLLOWER] = known
    tracks[known * TRACK_FIELDS + STIR] = UNKNOWN
    tracks[known * TRACK_FIELDS + HOW] = BY_BEFORE
    state[TRACKS] = known + 1
    return known


def _read_step(
    state: State, words: Integers, cdf: Integers, standing: tuple[int, int], passed_ms: int
) -> int:
    if read_bin(state, words, cdf, standing) == 0:
        return 0
    steps = state[STEPS]
    if steps == 0:
        usual = read_bin(state, words, cdf, _USUAL)
        difference = _read_difference(state, words, cdf, _FROM_USUAL)
        step_ms = USUAL_STEPS_MS[usual] + difference
        if nearest_usual(step_ms) != usual:
            raise MalformedError("a step of time is not told in its one form")
    else:
        model = _EVEN_STEP if state[EVEN] == 1 else _STEP
        difference = _read_difference(state, words, cdf, model)
        step_ms = (passed_ms + steps // 2) // steps + difference
    if step_ms < 1:
        raise MalformedError("time does not go forward")
    state[STEPS] = steps + 1
    state[EVEN] = 1 if difference == 0 else 0
    return step_ms


def _read_first_box(state: State, words: Integers, cdf: Integers, fields: State, at: int) -> None:
    for coordinate in range(at + 2, at + 4):
        value = _read_number(state, words, cdf, _PLACE)
        outside = value != 0 and read_bin(state, words, cdf, _OUTSIDE) == 1
        fields[coordinate] = -value if outside else value
    fields[at + 4] = _read_number(state, words, cdf, _SIDE)
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
        or fields[at + 1] < 0
        or max(abs(fields[at + 2]), abs(fields[at + 3]), width, height) > max_box_px
        or min(width, height) < 1
    ):
        raise MalformedError("a face's time, track or box is outside of the limits")
