"""Time, track and box of the faces of a chunk, told from those of the faces before.

The first face of a track in the chunk is told in full, a later one by its difference, so nothing
depends on another chunk. Every choice has one form, and a reader refuses the others: what decodes
encodes to the same bytes again.

    number      bit length (evenly likely), then the bits below the leading one
    difference  bit length of the magnitude (by a table), then sign and lower bits
    track       as expected | another of this chunk | new in it
    time        the same as the face before | last step plus a difference
"""

from dataclasses import dataclass, field
from itertools import accumulate

from mien.bitstream import Box, Limits
from mien.errors import EncodeError, MalformedError
from mien.range_coder import TOTAL, RangeDecoder, SymbolCoder

_LONG, _SHORT = 6, 4  # bits of a bit length: numbers below 2^63 and below 2^15
_FIRST_STEP_MS = 33  # 30 frames a second, until a step is known


def _cdf(*counts: int) -> tuple[int, ...]:
    return (0, *accumulate(counts))


# Counts for the bit length of a magnitude, out of 65536. Part of the format: never change them
# without the version. Boxes of a tracked face at 30 frames a second mostly move by 0 to 3 pixels
# and change size less; steps of time are even but for rounding and a camera's jitter.
_MOVE = _cdf(22000, 21000, 13000, 5500, 2400, 900, 350, 180, 90, 50, 30, *[6] * 6)
_RESIZE = _cdf(36000, 18000, 7500, 2500, 900, 350, 150, 60, 25, 15, 6, *[5] * 6)
_STEP = _cdf(
    *(30000, 20000, 7000, 3000, 2000, 1500, 800, 500, 250, 150, 100, 60, 40, 30, 20),
    *([3] * 18),
    *([2] * 16),
)
_EXPECTED, _KNOWN, _NEW = range(3)
_TRACK = _cdf(60000, 2768, 2768)
# Whether time stands still, by when the track was seen last: never in this chunk, in the frame
# of the face before (it is hardly there twice), in an earlier frame (its turn has come).
_STANDS_IF_NEW = _cdf(32768, 32768)
_STANDS_IF_HERE = _cdf(512, 65024)
_STANDS_IF_EARLIER = _cdf(64000, 1536)


@dataclass
class _History:
    """What both sides know when the next face comes."""

    time_ms: int = 0
    step_ms: int = _FIRST_STEP_MS
    track_id: int = -1
    seen: dict[int, tuple[int, Box]] = field(default_factory=dict)
    follower: dict[int, int] = field(default_factory=dict)

    def expected_track(self) -> int:
        """Who came last time after the track that came last; at first, that track itself."""
        return self.follower.get(self.track_id, self.track_id)

    def standing(self, track_id: int) -> tuple[int, ...]:
        if track_id not in self.seen:
            return _STANDS_IF_NEW
        return _STANDS_IF_HERE if self.seen[track_id][0] == self.time_ms else _STANDS_IF_EARLIER

    def add(self, time_ms: int, track_id: int, box: Box) -> None:
        if self.seen:
            self.follower[self.track_id] = track_id
        self.step_ms = (time_ms - self.time_ms if self.seen else 0) or self.step_ms
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
        self._number(faces, _SHORT)

    def write(self, time_ms: int, track_id: int, box: Box) -> None:
        """Write one face's fields. Raises EncodeError when one is outside of the limits."""
        self._check(time_ms, track_id, box)
        history = self._history
        if history.seen:
            self._track(track_id)
            self._time(time_ms, track_id)
        else:
            self._number(track_id, _LONG)
            self._number(time_ms, _LONG)
        if track_id in history.seen:
            self._moved_box(box, history.seen[track_id][1])
        else:
            self._first_box(box)
        history.add(time_ms, track_id, box)

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
            self._choice(_EXPECTED, _TRACK)
        elif track_id in history.seen:
            self._choice(_KNOWN, _TRACK)
            self._coder.encode_bits(list(history.seen).index(track_id), _index_bits(history))
        else:
            self._choice(_NEW, _TRACK)
            self._number(track_id, _LONG)

    def _time(self, time_ms: int, track_id: int) -> None:
        history = self._history
        step_ms = time_ms - history.time_ms
        self._choice(int(step_ms > 0), history.standing(track_id))
        if step_ms:
            self._difference(step_ms - history.step_ms, _STEP)

    def _first_box(self, box: Box) -> None:
        for coordinate in (box.x, box.y):
            self._number(abs(coordinate), _SHORT)
            if coordinate:
                self._coder.encode_bits(int(coordinate < 0), 1)
        self._number(box.width, _SHORT)
        self._number(box.height, _SHORT)

    def _moved_box(self, box: Box, last: Box) -> None:
        self._difference(box.x - last.x, _MOVE)
        self._difference(box.y - last.y, _MOVE)
        self._difference(box.width - last.width, _RESIZE)
        self._difference(box.height - last.height, _RESIZE)

    def _choice(self, index: int, cdf: tuple[int, ...]) -> None:
        self._coder.encode(cdf[index], cdf[index + 1])

    def _number(self, value: int, length_bits: int) -> None:
        bits = value.bit_length()
        self._coder.encode_bits(bits, length_bits)
        if bits > 1:
            self._coder.encode_bits(value - (1 << (bits - 1)), bits - 1)

    def _difference(self, value: int, cdf: tuple[int, ...]) -> None:
        magnitude = abs(value)
        bits = magnitude.bit_length()
        self._choice(bits, cdf)
        if bits:
            top = 1 << (bits - 1)
            self._coder.encode_bits(magnitude - top + (top if value < 0 else 0), bits)


class SideInformationReader:
    """Reads what SideInformationWriter wrote; raises MalformedError for anything else."""

    def __init__(self, coder: RangeDecoder, limits: Limits) -> None:
        self._coder = coder
        self._limits = limits
        self._history = _History()

    def read_count(self) -> int:
        """Return the declared number of faces, unchecked."""
        return self._number(_SHORT)

    def read(self) -> tuple[int, int, Box]:
        """Return the next face's time_ms, track_id and box, all within the limits."""
        history = self._history
        if history.seen:
            track_id = self._track()
            time_ms = history.time_ms + self._step(track_id)
        else:
            track_id = self._number(_LONG)
            time_ms = self._number(_LONG)
        if track_id in history.seen:
            box = self._moved_box(history.seen[track_id][1])
        else:
            box = self._first_box()
        self._check(time_ms, track_id, box)
        history.add(time_ms, track_id, box)
        return time_ms, track_id, box

    def _check(self, time_ms: int, track_id: int, box: Box) -> None:
        limits, side = self._limits, self._limits.max_box_px
        if (
            time_ms > limits.max_time_ms
            or track_id > limits.max_track_id
            or max(abs(box.x), abs(box.y), box.width, box.height) > side
            or min(box.width, box.height) < 1
        ):
            raise MalformedError(
                f"a face is outside of every limit: {time_ms} ms, track {track_id}, {box}"
            )

    def _track(self) -> int:
        history = self._history
        form = self._coder.decode(_TRACK)
        expected = history.expected_track()
        if form == _EXPECTED:
            return expected
        if form == _NEW:
            track_id = self._number(_LONG)
            if track_id not in history.seen:
                return track_id
        else:
            index = self._coder.decode_bits(_index_bits(history))
            if index < len(history.seen):
                track_id = list(history.seen)[index]
                if track_id != expected:
                    return track_id
        raise MalformedError("a track is not told in its one form")

    def _step(self, track_id: int) -> int:
        history = self._history
        if not self._coder.decode(history.standing(track_id)):
            return 0
        step_ms = history.step_ms + self._difference(_STEP)
        if step_ms < 1:
            raise MalformedError(f"time goes on by {step_ms} ms, which is not forward")
        return step_ms

    def _first_box(self) -> Box:
        return Box(
            self._coordinate(), self._coordinate(), self._number(_SHORT), self._number(_SHORT)
        )

    def _coordinate(self) -> int:
        value = self._number(_SHORT)
        return -value if value and self._coder.decode_bits(1) else value

    def _moved_box(self, last: Box) -> Box:
        return Box(
            last.x + self._difference(_MOVE),
            last.y + self._difference(_MOVE),
            last.width + self._difference(_RESIZE),
            last.height + self._difference(_RESIZE),
        )

    def _number(self, length_bits: int) -> int:
        bits = self._coder.decode_bits(length_bits)
        return 1 << (bits - 1) | self._coder.decode_bits(bits - 1) if bits else 0

    def _difference(self, cdf: tuple[int, ...]) -> int:
        bits = self._coder.decode(cdf)
        if not bits:
            return 0
        top = 1 << (bits - 1)
        value = self._coder.decode_bits(bits)
        return -value if value >= top else top + value


def _index_bits(history: _History) -> int:
    return (len(history.seen) - 1).bit_length()


assert _MOVE[-1] == _RESIZE[-1] == _STEP[-1] == _TRACK[-1] == TOTAL  # noqa: S101
