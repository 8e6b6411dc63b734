"""How much a device sends: which quality, how often, and how many faces, by how the link answers.

A ladder of operating points, dearest first. Where answers lag, down to what the link is seen to
carry for all faces in view; where they have been prompt for a while, one step up. A rung that has
to be given up after a try is tried again after twice as long: the link's limit is somewhere between
two rungs, and asking for it again and again is what oscillation is. What a rung costs is reckoned,
the lag is measured: where answers to what a rung has sent stay late, it was dearer than reckoned.
Nothing here knows time, networks or codecs; who drives it tells what it sees.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from edge_encoder.config import MAX_CHUNK_FACES
from mien.errors import ConfigError

# Of what a full link carries, so much is used: the rest lets the queue drain, by 0.25 s a second.
USED_SHARE = 0.8
# A queue that drains by less than this, in seconds a second, over so many seconds, does not drain.
LEAST_DRAIN = 0.1
DRAIN_S = 20.0


@dataclass(frozen=True)
class OperatingPoint:
    """What the encoder is to do.

    level: quality level of the bundle, 0 for the best. chunk_seconds: longest wait of a face for
    others. face_period_s: a track's faces are sent no more often; 0 for every one. chunk_faces: the
    most faces of a chunk, which is sent then, however short they have waited.
    """

    level: int
    chunk_seconds: float
    face_period_s: float
    chunk_faces: int = MAX_CHUNK_FACES


@dataclass(frozen=True)
class RateSettings:
    """max_lag_s: an answer that takes longer is late. settle_s: beside a chunk's own wait, so long
    a rung is watched before it is judged. patience_s: prompt answers for so long earn a step up;
    max_patience_s: at most so long, however often that had to be taken back.
    """

    max_lag_s: float = 2.0
    settle_s: float = 1.0
    patience_s: float = 5.0
    max_patience_s: float = 300.0

    def __post_init__(self) -> None:
        if not 0 < self.patience_s <= self.max_patience_s:
            raise ConfigError("patience_s must be above 0 and at most max_patience_s")


def ladder(
    level_bytes: Sequence[float],
    chunk_seconds: float,
    max_chunk_s: float,
    min_faces_per_s: float,
    target_face_bytes: float = 0,
    chunk_faces: int = MAX_CHUNK_FACES,
    max_chunk_faces: int = MAX_CHUNK_FACES,
) -> tuple[OperatingPoint, ...]:
    """Operating points, dearest first: quality goes first, then promptness, then faces.

    level_bytes: mean bytes of a face at each quality level, best first. chunk_seconds: what a face
    waits for others where the link allows it, max_chunk_s at most. min_faces_per_s: of a track,
    however bad the link. target_face_bytes: levels that cost more are not used while one does not;
    0 for no target. chunk_faces: of the chunks of chunk_seconds; longer ones may have more in
    proportion, max_chunk_faces at most.
    """
    affordable = [
        level
        for level, size in enumerate(level_bytes)
        if not target_face_bytes or size <= target_face_bytes
    ]
    levels = affordable or [len(level_bytes) - 1]
    chunk_faces = min(chunk_faces, max_chunk_faces)
    first = OperatingPoint(levels[0], min(chunk_seconds, max_chunk_s), 0.0, chunk_faces)
    points = [replace(first, level=level) for level in levels]
    while points[-1].chunk_seconds < max_chunk_s:
        longer = min(2 * max(points[-1].chunk_seconds, 0.05), max_chunk_s)
        room = math.ceil(chunk_faces * longer / max(first.chunk_seconds, 1e-3))
        room = min(room, max_chunk_faces)
        points.append(replace(points[-1], chunk_seconds=longer, chunk_faces=room))
    # Five faces a second are still smooth to look at; each rung halves them.
    period_s = 0.2
    while period_s < 1 / min_faces_per_s:
        points.append(replace(points[-1], face_period_s=period_s))
        period_s *= 2
    points.append(replace(points[-1], face_period_s=1 / min_faces_per_s))
    return tuple(points)


@dataclass(frozen=True)
class Seen:
    """What a device sees of its uplink.

    lag_s: how long the oldest unanswered chunk has waited. held_back: whether chunks wait for
    credits: the server has no room. answered_bytes: of chunks answered so far, with what each costs
    beside its payload. faces_per_s: that the camera gives now, before any are left out. tracks:
    faces in view, whose they are; also a mean of some seconds.
    """

    lag_s: float
    held_back: bool
    answered_bytes: int
    faces_per_s: float
    tracks: float = 1.0


class RateControl:
    """Walks a ladder. `observe` often, at least once a second; `point` is what to do.

    level_bytes: as for ladder. chunk_bytes: what a chunk costs beside its faces.
    """

    def __init__(
        self,
        points: Sequence[OperatingPoint],
        level_bytes: Sequence[float],
        chunk_bytes: float,
        settings: RateSettings,
        now_s: float,
    ) -> None:
        self._chunk_bytes, self._settings = chunk_bytes, settings
        self._points, self._level_bytes = tuple(points), tuple(level_bytes)
        self._rung = 0
        # Those that were given up after a try.
        self._failed: dict[int, _Failed] = {}
        self._raised_to: int | None = None
        self._stepped_s = self._prompt_since_s = self._in_time_since_s = now_s
        self._window = _Window(now_s, 0)
        self._late: _Late | None = None
        # What the link carried when it was full last; 0 while it never was.
        self._full_bytes_per_s = 0.0

    @property
    def point(self) -> OperatingPoint:
        """What the encoder is to do now."""
        return self._points[self._rung]

    @property
    def rung(self) -> int:
        """How far down the ladder, 0 at its top."""
        return self._rung

    def bytes_per_s(self, point: OperatingPoint, faces_per_s: float, tracks: float = 1.0) -> float:
        """What a point costs, for that many tracks with so many faces a second together."""
        if point.face_period_s:
            faces_per_s = min(faces_per_s, tracks / point.face_period_s)
        by_time = min(faces_per_s, 1 / max(point.chunk_seconds, 1e-3))
        chunks_per_s = max(by_time, faces_per_s / point.chunk_faces)
        return chunks_per_s * self._chunk_bytes + faces_per_s * self._level_bytes[point.level]

    def _cost(self, rung: int, seen: Seen) -> float:
        return self.bytes_per_s(self._points[rung], seen.faces_per_s, seen.tracks)

    def observe(self, now_s: float, seen: Seen) -> OperatingPoint:
        """What to do from now on. Only while connected: without a connection, lag says nothing."""
        if seen.held_back or seen.lag_s > self._settings.max_lag_s / 2:
            self._prompt_since_s = now_s
        if seen.held_back or seen.lag_s > self._settings.max_lag_s:
            self._in_time_since_s = now_s
        self._window.least_s = min(self._window.least_s, seen.lag_s)
        if now_s - self._window.begun_s >= self._settings.settle_s + self.point.chunk_seconds:
            self._judge(now_s, seen)
        self._maybe_raise(now_s, seen)
        return self.point

    def pause(self, now_s: float, answered_bytes: int) -> None:
        """There is no connection: what was seen before says nothing about the next one."""
        self._window = _Window(now_s, answered_bytes)
        self._prompt_since_s = self._in_time_since_s = now_s
        self._late, self._full_bytes_per_s = None, 0.0

    def _judge(self, now_s: float, seen: Seen) -> None:
        """Where answers were late throughout: down to what the link is seen to carry, and a rest.

        A link that keeps chunks waiting is full, and what it carries then is what it can. The rest
        is for the queue to drain by; while it does, the rung is low enough and stays.
        """
        window, self._window = self._window, _Window(now_s, seen.answered_bytes)
        if window.least_s <= self._settings.max_lag_s:
            self._late = None
            return
        carried = (seen.answered_bytes - window.answered_bytes) / (now_s - window.begun_s)
        carried = min(carried, self._carried_by_lag(now_s, window, seen))
        self._full_bytes_per_s = carried
        last = len(self._points) - 1
        for rung in range(self._rung, last + 1):
            if self._cost(rung, seen) <= USED_SHARE * carried:
                break
        if rung == self._rung:
            return
        if self._raised_to is not None:
            self._fail(self._raised_to, seen)
        self._rung, self._stepped_s, self._raised_to, self._late = rung, now_s, None, None

    def _carried_by_lag(self, now_s: float, window: "_Window", seen: Seen) -> float:
        """What the link carries at most, as the lag of what this rung has sent says; or infinity.

        Lag grows by 1 - carried/sent a second, and what a rung within the link's means has sent
        waits less and less. What was sent before the step to it says nothing.
        """
        if window.begun_s - window.least_s < self._stepped_s:
            return math.inf
        if self._late is None:
            self._late = _Late(now_s, window.least_s)
            return math.inf
        passed_s, grown_s = now_s - self._late.since_s, window.least_s - self._late.lag_s
        drains = passed_s < DRAIN_S or grown_s < -LEAST_DRAIN * passed_s
        if drains and grown_s <= self._settings.max_lag_s:
            if passed_s >= DRAIN_S:
                self._late = _Late(now_s, window.least_s)
            return math.inf
        # A lag is known to some seconds only: no more than half is taken at once.
        kept = 1 - min(max(grown_s / passed_s, 0.0), 0.5)
        self._late = _Late(now_s, window.least_s)
        return kept * self._cost(self._rung, seen)

    def _fail(self, rung: int, seen: Seen) -> None:
        before = self._failed.get(rung)
        wait_s = 2 * (before.wait_s if before else self._settings.patience_s)
        wait_s = min(wait_s, self._settings.max_patience_s)
        self._failed[rung] = _Failed(wait_s, self._cost(rung, seen))

    def _maybe_raise(self, now_s: float, seen: Seen) -> None:
        if now_s - self._stepped_s >= 2 * self._settings.max_patience_s:
            self._raised_to = None  # what held for so long, the link can carry
        if not self._rung:
            return
        cost, failed = self._cost(self._rung - 1, seen), self._failed.get(self._rung - 1)
        wait_s, since_s = self._settings.patience_s, self._prompt_since_s
        # With fewer faces in view the rung is another one than that which failed.
        if failed and cost > USED_SHARE * failed.bytes_per_s:
            wait_s = failed.wait_s
        # A chunk alone may take a thin link for so long that no answer is prompt.
        if cost <= USED_SHARE * self._full_bytes_per_s:
            since_s = self._in_time_since_s
        if now_s - max(since_s, self._stepped_s) >= wait_s:
            self._rung -= 1
            self._stepped_s, self._raised_to, self._late = now_s, self._rung, None


@dataclass(frozen=True)
class _Failed:
    """A rung that was given up: how long promptness must last until it is tried again, in seconds,
    and what it cost then.
    """

    wait_s: float
    bytes_per_s: float


@dataclass(frozen=True)
class _Late:
    """Since when answers to what this rung has sent are late, and by how much they were then."""

    since_s: float
    lag_s: float


@dataclass
class _Window:
    """Since when, how much was answered by then, and the least lag since."""

    begun_s: float
    answered_bytes: int
    least_s: float = math.inf
