"""The demo's running figures: what was recognised lately, and what it cost."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from mien.cli.results import FaceResult

_RATE_WINDOW_S = 2.0
_RECENT_S = 1.0
_COSTS_KEPT = 40

_BLOCKS = "▁▂▃▄▅▆▇█"
_EIGHTHS = " ▏▎▍▌▋▊▉█"


class Tally:
    """Adds up results as they come. `clock` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.faces = 0
        self.latest: dict[int, FaceResult] = {}  # by track id
        self.costs: deque[float] = deque(maxlen=_COSTS_KEPT)  # bytes a face, the latest last
        self._payload_bytes = 0.0
        self._wire: deque[tuple[float, int]] = deque()  # (clock, bytes up so far)
        self._clock = clock

    def add(self, face: FaceResult) -> None:
        """Count one recognised face."""
        self.faces += 1
        self.latest[face.track_id] = face
        self.costs.append(face.payload_bytes)
        self._payload_bytes += face.payload_bytes

    def wire(self, total_bytes: int) -> None:
        """Note how many bytes have gone through the socket upward so far."""
        now = self._clock()
        self._wire.append((now, total_bytes))
        while now - self._wire[0][0] > _RATE_WINDOW_S:
            self._wire.popleft()

    @property
    def payload_bytes_per_face(self) -> float | None:
        """Mean over the faces so far; None before the first."""
        return self._payload_bytes / self.faces if self.faces else None

    @property
    def wire_bytes_per_s(self) -> float | None:
        """Over the last two seconds; None until two readings are there."""
        if len(self._wire) < 2 or self._wire[-1][0] <= self._wire[0][0]:
            return None
        (start, before), (end, after) = self._wire[0], self._wire[-1]
        return (after - before) / (end - start)

    def in_view(self) -> list[FaceResult]:
        """The last result of each face of the latest second, the largest face first."""
        if not self.latest:
            return []
        now = max(face.t_s for face in self.latest.values())
        recent = [face for face in self.latest.values() if now - face.t_s <= _RECENT_S]
        return sorted(recent, key=lambda face: face.box[2] * face.box[3], reverse=True)


def sparkline(values: deque[float]) -> str:
    """The values as blocks, each as high as its share of the largest."""
    top = max(values, default=0.0)
    if top <= 0:
        return ""
    return "".join(_BLOCKS[min(int(value / top * 8), 7)] for value in values)


def bar(probability: float, width: int) -> str:
    """A bar of `width` characters at probability 1, drawn to an eighth of a character."""
    eighths = round(min(max(probability, 0.0), 1.0) * width * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(width)
