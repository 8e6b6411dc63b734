"""A camera with faces in view, its pacing and its backlog, over a line of so many bytes a second.

Simulated are the clock, the faces, the chunks that they fill, and the line with a server behind it
that answers at once. The pacing and the backlog are the device's own.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from edge_encoder.backlog import Backlog
from edge_encoder.chunker import Chunk, FrameTime
from edge_encoder.metrics import Metrics
from edge_encoder.pacing import CHUNK_WIRE_BYTES, PaceSettings, Pacing
from edge_encoder.rate_control import RateSettings

FRAME_S = 0.1
WAY_S = 0.1  # there and back
CREDITS = 8  # what a recognizer grants without being told otherwise
QUEUE_CHUNKS = 64
LEVEL_BYTES = (2.8, 3.4, 4.4, 6.0)  # of the released bundle, up to its usual level
SETTINGS = PaceSettings(8, 0.5, 2.0, 1.0, RateSettings())


@dataclass(frozen=True)
class Moment:
    """What was to be seen after a frame. lost, left_out: faces so far."""

    at_s: float
    rung: int
    lag_s: float
    lost: int
    left_out: int


@dataclass
class Filling:
    """Faces become chunks as in `FaceEncoder` and `Chunker`, of which it has what pacing uses."""

    chunk_faces: int
    chunk_seconds: float
    level: int
    period_ms: int = 0
    left_out: int = 0
    _sent_ms: dict[int, int] = field(default_factory=dict)
    _waiting: list[FrameTime] = field(default_factory=list)

    def pace(self, chunk_faces: int, chunk_seconds: float, level: int | None = None) -> None:
        self.chunk_faces, self.chunk_seconds = chunk_faces, chunk_seconds
        self.level = self.level if level is None else level

    def frame(self, number: int, tracks: int) -> list[Chunk]:
        now_ms = round(number * FRAME_S * 1000)
        done: list[Chunk] = []
        frame = FrameTime(number, now_ms / 1000)
        if self._waiting and frame.t_s - self._waiting[0].t_s >= self.chunk_seconds:
            done.append(self._chunk())
        for track in range(tracks):
            if now_ms - self._sent_ms.get(track, -self.period_ms) < self.period_ms:
                self.left_out += 1
                continue
            self._sent_ms[track] = now_ms
            self._waiting.append(frame)
            if len(self._waiting) >= self.chunk_faces:
                done.append(self._chunk())
        return done

    def _chunk(self) -> Chunk:
        frames, self._waiting = tuple(self._waiting), []
        return Chunk(bytes(round(len(frames) * LEVEL_BYTES[self.level])), frames)


@dataclass
class Line:
    """First in, first out; what a chunk takes is its payload and what is paid beside it."""

    bytes_per_s: Callable[[float], float]
    credits: int = CREDITS
    _queue: deque[tuple[int, float]] = field(default_factory=deque)  # seq, bytes that are left
    _coming: deque[tuple[float, int]] = field(default_factory=deque)  # when, the answer of which

    def send(self, seq: int, chunk: Chunk) -> None:
        self.credits -= 1
        self._queue.append((seq, len(chunk.payload) + CHUNK_WIRE_BYTES))

    def carry(self, now_s: float) -> list[int]:
        """A frame's time passes; the seqs whose answers arrive."""
        budget = self.bytes_per_s(now_s) * FRAME_S
        while self._queue and budget > 0:
            seq, left = self._queue.popleft()
            if left > budget:
                self._queue.appendleft((seq, left - budget))
            else:
                self._coming.append((now_s + WAY_S, seq))
            budget -= left
        arrived = []
        while self._coming and self._coming[0][0] <= now_s:
            arrived.append(self._coming.popleft()[1])
        self.credits += len(arrived)
        return arrived


class SimulatedDevice:
    """Runs frame by frame; it is also what pacing sees of an uplink."""

    connected = True

    def __init__(
        self,
        bytes_per_s: Callable[[float], float],
        tracks: Callable[[float], int],
        settings: PaceSettings = SETTINGS,
        level_bytes: Sequence[float] = LEVEL_BYTES,
    ) -> None:
        self._now_s, self._tracks = 0.0, tracks
        self._line = Line(bytes_per_s)
        self._filling = Filling(settings.chunk_faces, settings.chunk_seconds, len(level_bytes) - 1)
        self._backlog = Backlog(QUEUE_CHUNKS, 256, clock=lambda: self._now_s)
        self._metrics = Metrics()
        self._lost = 0
        filling = self._filling
        self._pacing = Pacing(
            *(settings, level_bytes, filling, filling),  # type: ignore[arg-type]  # what is used
            *(self._metrics, lambda: self._now_s),
        )

    @property
    def lag_s(self) -> float:
        return self._backlog.lag_s

    @property
    def held_back(self) -> bool:
        return not self._line.credits and self._backlog.can_send

    def run(self, seconds: float) -> list[Moment]:
        """From the start, ten frames a second."""
        seen = []
        for number in range(round(seconds / FRAME_S)):
            self._now_s = number * FRAME_S
            self._frame(number)
            rung = self._metrics.registry.get_sample_value("mien_edge_rate_rung") or 0
            left_out = self._filling.left_out
            seen.append(Moment(self._now_s, int(rung), self.lag_s, self._lost, left_out))
        return seen

    def _frame(self, number: int) -> None:
        tracks = self._tracks(self._now_s)
        for seq in self._line.carry(self._now_s):
            if (chunk := self._backlog.answer(seq)) is not None:
                self._pacing.answered(chunk)
        for chunk in self._filling.frame(number, tracks):
            if (lost := self._backlog.offer(chunk)) is not None:
                self._lost += len(lost.frames)
        while self._line.credits and self._backlog.can_send:
            self._line.send(*self._backlog.next_to_send())
        self._pacing.look(self, tracks)  # type: ignore[arg-type]  # what of an uplink is used
        for lost in self._backlog.shed(self._pacing.stale_s):
            self._lost += len(lost.frames)
