"""Time, track and box of the faces of a chunk, told from those of the faces before.

The first face of a track in the chunk is told in full, a later one by its difference, so nothing
depends on another chunk. Every choice has one form, and the reader, `mien.side_reading`, refuses
the others: what decodes encodes to the same bytes again. Only whether and by
which of the priors that compete a face is told afresh is the encoder's own choice.

    number      bit length (by a table), then the bits below the leading one
    difference  bit length of the magnitude (by a table), then sign and lower bits
    track       as expected | another of this chunk | new in it: a difference from the next id
    time        the same as the face before | a step: the first one a difference from the nearest
                usual one, the others from the mean of the steps so far
    box         the same as the track's before | differences, of which one is not 0; that of the
                height is told against that of the width, for faces are framed in one proportion
"""

from dataclasses import dataclass, field

from mien.bitstream import Box, Limits
from mien.errors import EncodeError
from mien.range_coder import SymbolCoder
from mien.side_counts import (
    COUNT,
    EVEN_STEP,
    FIRST_ID,
    FIRST_TIME,
    FROM_NEXT_ID,
    FROM_USUAL,
    HEIGHT,
    MOVE,
    MOVES,
    OUTSIDE,
    PLACE,
    RESIZE,
    SIDE,
    STANDS_IF_EARLIER,
    STANDS_IF_HERE,
    STANDS_IF_NEW,
    STEP,
    TRACK,
    USUAL,
    USUAL_STEPS_MS,
)
from mien.stir import GIVEN, STIRS, TOLD

EXPECTED, KNOWN, NEW = range(3)


@dataclass
class _History:
    """What both sides know when the next face comes."""

    first_ms: int = 0
    time_ms: int = 0
    steps: int = 0
    even: bool = False
    track_id: int = -1
    seen: dict[int, tuple[int, Box]] = field(default_factory=dict)
    follower: dict[int, int] = field(default_factory=dict)

    def expected_track(self) -> int:
        """Who came last time after the track that came last; at first, that track itself."""
        return self.follower.get(self.track_id, self.track_id)

    def standing(self, track_id: int) -> tuple[int, ...]:
        if track_id not in self.seen:
            return STANDS_IF_NEW
        return STANDS_IF_HERE if self.seen[track_id][0] == self.time_ms else STANDS_IF_EARLIER

    def expected_step_ms(self) -> int:
        """The mean of the steps so far, of which there is one, rounded."""
        return (self.time_ms - self.first_ms + self.steps // 2) // self.steps

    def next_id(self) -> int:
        """What a new track's id is expected to be."""
        return max(self.seen) + 1

    def add(self, time_ms: int, track_id: int, box: Box) -> None:
        if self.seen:
            self.follower[self.track_id] = track_id
            self.steps += time_ms > self.time_ms
        else:
            self.first_ms = time_ms
        self.time_ms, self.track_id = time_ms, track_id
        self.seen[track_id] = (time_ms, box)


class SideInformationWriter:
    """Writes the fields of one chunk's faces, in their order."""

    def __init__(self, coder: SymbolCoder, limits: Limits) -> None:
        self._coder = coder
        self._limits = limits
        self._history = _History()

    def write_count(self, faces: int) -> None:
        """Write the number of faces, which comes before everything else."""
        self._number(faces, COUNT)

    def write_choice(self, choice: int, of: int) -> None:
        """Write one of so many that are as likely: the chunk's level, a first face's prior."""
        self._coder.encode_bits(choice, choice_bits(of))

    def write(self, time_ms: int, track_id: int, box: Box) -> None:
        """Write one face's fields. Raises EncodeError when one is outside of the limits."""
        self._check(time_ms, track_id, box)
        history = self._history
        if history.seen:
            self._track(track_id)
            self._time(time_ms, track_id)
        else:
            self._number(track_id, FIRST_ID)
            self._number(time_ms, FIRST_TIME)
        if track_id in history.seen:
            self._moved_box(box, history.seen[track_id][1])
        else:
            self._first_box(box)
        history.add(time_ms, track_id, box)

    def write_stir(self, stir: int, before: int) -> None:
        """Write how much a later face of a track has changed; before: the track's last stir."""
        self._choice(stir, STIRS[before])

    def write_told(self, stir: int, told: int, before: int) -> None:
        """Write how a later face of one of GIVEN is told: BY_BEFORE or ALL_AFRESH.

        before: how the track's last face was.
        """
        self._choice(told, TOLD[before][stir - GIVEN[0]])

    def _check(self, time_ms: int, track_id: int, box: Box) -> None:
        limits, side = self._limits, self._limits.max_box_px
        earliest = self._history.time_ms
        if not earliest <= time_ms <= limits.max_time_ms:
            raise EncodeError(
                f"time_ms must be within {earliest}..{limits.max_time_ms}, not {time_ms}: "
                "the faces of a chunk are in the order of time"
            )
        if not 0 <= track_id <= limits.max_track_id:
            raise EncodeError(f"track_id must be within 0..{limits.max_track_id}, not {track_id}")
        if max(abs(box.x), abs(box.y), box.width, box.height) > side or (
            min(box.width, box.height) < 1
        ):
            raise EncodeError(f"a box has sides of 1..{side} and coordinates of ±{side}, not {box}")

    def _track(self, track_id: int) -> None:
        history = self._history
        if track_id == history.expected_track():
            self._choice(EXPECTED, TRACK)
        elif track_id in history.seen:
            self._choice(KNOWN, TRACK)
            self._coder.encode_bits(list(history.seen).index(track_id), _index_bits(history))
        else:
            self._choice(NEW, TRACK)
            self._difference(track_id - history.next_id(), FROM_NEXT_ID)

    def _time(self, time_ms: int, track_id: int) -> None:
        history = self._history
        step_ms = time_ms - history.time_ms
        self._choice(int(step_ms > 0), history.standing(track_id))
        if not step_ms:
            return
        if history.steps:
            difference = step_ms - history.expected_step_ms()
            self._difference(difference, EVEN_STEP if history.even else STEP)
        else:
            usual = nearest_usual(step_ms)
            difference = step_ms - USUAL_STEPS_MS[usual]
            self._choice(usual, USUAL)
            self._difference(difference, FROM_USUAL)
        history.even = difference == 0

    def _first_box(self, box: Box) -> None:
        for coordinate in (box.x, box.y):
            self._number(abs(coordinate), PLACE)
            if coordinate:
                self._choice(int(coordinate < 0), OUTSIDE)
        self._number(box.width, SIDE)
        self._difference(box.height - box.width, HEIGHT)

    def _moved_box(self, box: Box, last: Box) -> None:
        self._choice(int(box != last), MOVES)
        if box == last:
            return
        self._difference(box.x - last.x, MOVE)
        self._difference(box.y - last.y, MOVE)
        self._difference(box.width - last.width, RESIZE)
        self._difference(box.height - last.height - (box.width - last.width), HEIGHT)

    def _choice(self, index: int, cdf: tuple[int, ...]) -> None:
        self._coder.encode(cdf[index], cdf[index + 1])

    def _number(self, value: int, cdf: tuple[int, ...]) -> None:
        bits = value.bit_length()
        self._choice(bits, cdf)
        if bits > 1:
            self._coder.encode_bits(value - (1 << (bits - 1)), bits - 1)

    def _difference(self, value: int, cdf: tuple[int, ...]) -> None:
        magnitude = abs(value)
        bits = magnitude.bit_length()
        self._choice(bits, cdf)
        if bits:
            top = 1 << (bits - 1)
            self._coder.encode_bits(magnitude - top + (top if value < 0 else 0), bits)


def nearest_usual(step_ms: int) -> int:
    """Which of USUAL_STEPS_MS is nearest to a step; of two the shorter one.

    Written in what numba knows: `mien.side_reading` asks it, too.
    """
    nearest = 0
    for usual in range(1, len(USUAL_STEPS_MS)):
        if abs(step_ms - USUAL_STEPS_MS[usual]) < abs(step_ms - USUAL_STEPS_MS[nearest]):
            nearest = usual
    return nearest


def choice_bits(of: int) -> int:
    """Bits that tell one of so many."""
    return (of - 1).bit_length()


def _index_bits(history: _History) -> int:
    return (len(history.seen) - 1).bit_length()
