"""How a camera does: each change, and one figure from 0 to 1 over the last five minutes."""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal

from mien.errors import SourceLostError

BUCKET_S: Final = 10.0
BUCKETS: Final = 30
# A camera counts as delivering for so long after each frame, and for two frames at least.
DELIVERING_S: Final = 1.0
# Openings after the first, within the window, at which nothing is left of the figure.
MAX_REOPENS: Final = 10


@dataclass(frozen=True)
class CameraChange:
    """A camera has been lost, or delivers again.

    error: why it was lost. retry_in_s: when it is opened next. Both None when it delivers.
    """

    state: Literal["delivering", "lost"]
    error: SourceLostError | None = None
    retry_in_s: float | None = None


@dataclass(frozen=True)
class HealthReport:
    """What is known of a camera at one moment; shares and rates are of the window.

    health: 0..1, see CameraHealth. delivering: whether frames come at this moment.
    delivering_share: 0..1. fps: frames a second of the time in which it delivered.
    reopens: openings after the first.
    """

    health: float
    delivering: bool
    delivering_share: float
    fps: float
    reopens: int


@dataclass
class _Bucket:
    index: int
    delivering_s: float = 0.0
    frames: int = 0
    reopens: int = 0


class CameraHealth:
    """Keeps the health of one camera. May be used from several threads.

        health = delivering_share · min(1, fps / expected_fps) · max(0, 1 - reopens / 10)

    All three are of the window: the last 300 s, or what has passed since the start, counted in
    steps of 10 s (the running step and the 29 before it).

    - delivering_share: the seconds in which the camera delivered, over the window's. It delivers
      from each frame on for `DELIVERING_S`, or 2 / expected_fps where that is longer, unless it
      is lost before. A frozen picture delivers until it is noticed to be one.
    - fps: frames over the seconds in which it delivered, so that an outage counts once. Frames
      that nobody took in time count. Without an expected rate the factor is 1: what a stream
      declares about itself is too often wrong.
    - reopens: attempts to open the camera after the first, whether they succeeded or not.

    expected_fps: frames a second, None where none is expected.
    """

    def __init__(
        self, expected_fps: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._expected_fps = expected_fps
        self._clock = clock
        self._keep_s = max(DELIVERING_S, 2 / expected_fps if expected_fps else 0.0)
        self._lock = threading.Lock()
        self._start_s = self._counted_to_s = clock()
        self._delivering_to_s = self._start_s
        self._buckets: deque[_Bucket] = deque(maxlen=BUCKETS)

    def frame(self) -> None:
        """A frame came."""
        with self._lock:
            now_s = self._count()
            self._bucket(now_s).frames += 1
            self._delivering_to_s = now_s + self._keep_s

    def lost(self) -> None:
        """The camera failed: it delivers nothing until its next frame."""
        with self._lock:
            self._delivering_to_s = self._count()

    def reopened(self) -> None:
        """It is being opened once more."""
        with self._lock:
            self._bucket(self._count()).reopens += 1

    def report(self) -> HealthReport:
        """The figures of this moment."""
        with self._lock:
            now_s = self._count()
            first = self._index(now_s) - BUCKETS + 1
            buckets = [bucket for bucket in self._buckets if bucket.index >= first]
            window_s = now_s - max(self._start_s, self._start_s + first * BUCKET_S)
            delivering = now_s < self._delivering_to_s
        delivered_s = sum(bucket.delivering_s for bucket in buckets)
        frames = sum(bucket.frames for bucket in buckets)
        reopens = sum(bucket.reopens for bucket in buckets)
        share = min(delivered_s / window_s, 1.0) if window_s > 0 else 0.0
        fps = frames / delivered_s if delivered_s > 0 else 0.0
        rate = min(1.0, fps / self._expected_fps) if self._expected_fps else 1.0
        steadiness = max(0.0, 1 - reopens / MAX_REOPENS)
        return HealthReport(share * rate * steadiness, delivering, share, fps, reopens)

    def _index(self, time_s: float) -> int:
        return int((time_s - self._start_s) / BUCKET_S)

    def _bucket(self, time_s: float) -> _Bucket:
        index = self._index(time_s)
        if not self._buckets or self._buckets[-1].index < index:
            self._buckets.append(_Bucket(index))
        return self._buckets[-1]

    def _count(self) -> float:
        """Give the buckets the time of delivery since the last call; returns the time."""
        now_s = self._clock()
        until_s = min(now_s, self._delivering_to_s)
        at_s = self._counted_to_s
        while at_s < until_s:
            bucket = self._bucket(at_s)
            step_end_s = self._start_s + (bucket.index + 1) * BUCKET_S
            # The bucket of a time just below its end may round to the next: never stand still.
            next_s = step_end_s if at_s < step_end_s < until_s else until_s
            bucket.delivering_s += next_s - at_s
            at_s = next_s
        self._counted_to_s = now_s
        return now_s


def _nothing(change: CameraChange) -> None:
    """Nobody is told."""


@dataclass(frozen=True)
class Watcher:
    """Who wants to know how a camera does.

    on_change: told of every change, on the camera's own threads.
    """

    health: CameraHealth = field(default_factory=CameraHealth)
    on_change: Callable[[CameraChange], None] = _nothing
