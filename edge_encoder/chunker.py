"""Faces share an entropy-coded chunk: the coder's end and the transport's frame are paid once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edge_encoder.layering import Layering
from edge_encoder.steadying import steadied
from mien.bitstream import EncodedFace
from mien.bundle import Bundle
from mien.codec import ChunkCodec
from mien.errors import EncodeError, LimitError
from mien.tracing import Laps, Stage

if TYPE_CHECKING:  # needs mien[tracing]
    from mien.spans import Trace, Tracing


@dataclass(frozen=True)
class FrameTime:
    """Which frame a face was seen in: its index, and seconds since the source's start.

    stages: what was done to it, where chunks are traced.
    """

    index: int
    t_s: float
    stages: tuple[Stage, ...] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True)
class Chunk:
    """A payload and, in the payload's order, the frames its faces are from.

    layers: enhancement layers of its faces, which are sent if they can be and never spooled.
    trace: of the few that have one.
    """

    payload: bytes
    frames: tuple[FrameTime, ...]
    layers: tuple[bytes, ...] = ()
    trace: Trace | None = field(default=None, compare=False, repr=False)

    def end_trace(self, outcome: str) -> None:
        """The chunk is out of our hands: settled, lost, or left to the spool."""
        if self.trace is not None:
            self.trace.end(outcome, faces=len(self.frames))


class Chunker:
    """Gathers faces until a chunk is full or its first face has waited long enough.

    chunk_faces: faces that fill a chunk. chunk_seconds: longest wait of a face, by the frames'
    times, so a clip gives the same chunks however fast it is read.
    level: the quality level of its chunks; None for the one that faces come with.
    layering: makes the enhancement layers of chunks; without, there are none.
    strength: of the choice of symbols, see mien.choosing.
    tracing: begins the traces of some chunks.
    dropped: code of mien.errors → faces that no chunk can carry, so far.
    """

    def __init__(
        self,
        codec: ChunkCodec,
        chunk_faces: int,
        chunk_seconds: float,
        level: int | None = None,
        layering: Layering | None = None,
        strength: float = 0.0,
        tracing: Tracing | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock, self._opened_s = clock, 0.0
        self._codec, self._level, self._layering = codec, level, layering
        self._strength, self._tracing = strength, tracing
        self._chunk_faces = chunk_faces
        self._chunk_seconds = chunk_seconds
        self._max_bytes: int | None = None
        self._max_faces: int | None = None
        self._waiting: list[tuple[FrameTime, EncodedFace]] = []
        self.dropped: dict[str, int] = {}

    def pace(self, chunk_faces: int, chunk_seconds: float, level: int | None = None) -> None:
        """Fill chunks otherwise from now on; what a server takes at most still holds."""
        self._level = level
        self._chunk_faces = min(chunk_faces, self._max_faces or chunk_faces)
        self._chunk_seconds = chunk_seconds

    @property
    def age_s(self) -> float | None:
        """How long the first face that waits has waited, whatever frames came; None without one."""
        return self._clock() - self._opened_s if self._waiting else None

    def request_layers(self) -> None:
        """Somebody asks for the layers of the next chunk; from any thread."""
        if self._layering is not None:
            self._layering.request()

    def restrict(self, max_faces: int, max_bytes: int) -> None:
        """Keep to what a server takes in one chunk."""
        self._max_faces = max(max_faces, 1)
        self._chunk_faces = min(self._chunk_faces, self._max_faces)
        self._max_bytes = max_bytes

    def change(self, bundle: Bundle) -> list[Chunk]:
        """Code with another bundle from now on; returns what waited, coded with the one before."""
        done = self.flush()
        self._codec = bundle.codec()
        if self._layering is not None:
            self._layering.change(bundle)
        return done

    def add(self, frame: FrameTime, faces: Sequence[EncodedFace]) -> list[Chunk]:
        """Take the faces of the next frame, none perhaps; return the chunks that are done."""
        done: list[Chunk] = []
        if self._waiting and frame.t_s - self._waiting[0][0].t_s >= self._chunk_seconds:
            done += self.flush()
        for face in faces:
            if not self._waiting:
                self._opened_s = self._clock()
            self._waiting.append((frame, face))
            if len(self._waiting) >= self._chunk_faces:
                done += self.flush()
        return done

    def flush(self) -> list[Chunk]:
        """Everything that waits: one chunk, none, or several where one would be too long."""
        waiting, self._waiting = self._waiting, []
        return self._encode(waiting)

    def _encode(self, items: list[tuple[FrameTime, EncodedFace]]) -> list[Chunk]:
        if not items:
            return []
        laps = Laps() if self._tracing is not None else None
        try:
            level = None if self._level is None else min(self._level, self._codec.tables.levels - 1)
            faces = [face for _, face in items]
            coded = steadied(faces, self._codec.tables, level, self._strength)
            payload = self._codec.encode(coded)
            if self._max_bytes is not None and len(payload) > self._max_bytes:
                raise LimitError(f"the server takes {self._max_bytes} bytes, not {len(payload)}")  # noqa: TRY301
        except (EncodeError, LimitError) as error:
            if len(items) == 1:
                self.dropped[error.code] = self.dropped.get(error.code, 0) + 1
                return []
            # One face that cannot be coded must not cost the others.
            half = len(items) // 2
            return self._encode(items[:half]) + self._encode(items[half:])
        frames = tuple(frame for frame, _ in items)
        layers: tuple[bytes, ...] = ()
        if self._layering is not None:
            layers = self._layering.layers(payload, coded, faces)
        return [Chunk(payload, frames, layers, self._trace(frames, laps))]

    def _trace(self, frames: Sequence[FrameTime], laps: Laps | None) -> Trace | None:
        if self._tracing is None or laps is None:
            return None
        laps.lap("encode")
        stages = [stage for frame in dict.fromkeys(frames) for stage in frame.stages]
        return self._tracing.begin([*stages, *laps.stages])
