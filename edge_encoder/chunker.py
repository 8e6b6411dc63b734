"""Faces share an entropy-coded chunk: the coder's end and the transport's frame are paid once."""

from collections.abc import Sequence
from dataclasses import dataclass

from edge_encoder.steadying import steadied
from mien.bitstream import EncodedFace
from mien.codec import ChunkCodec
from mien.errors import EncodeError, LimitError


@dataclass(frozen=True)
class FrameTime:
    """Which frame a face was seen in: its index, and seconds since the source's start."""

    index: int
    t_s: float


@dataclass(frozen=True)
class Chunk:
    """A payload and, in the payload's order, the frames its faces are from."""

    payload: bytes
    frames: tuple[FrameTime, ...]


class Chunker:
    """Gathers faces until a chunk is full or its first face has waited long enough.

    chunk_faces: faces that fill a chunk. chunk_seconds: longest wait of a face, by the frames'
    times, so a clip gives the same chunks however fast it is read.
    dropped: code of mien.errors → faces that no chunk can carry, so far.
    """

    def __init__(self, codec: ChunkCodec, chunk_faces: int, chunk_seconds: float) -> None:
        self._codec = codec
        self._chunk_faces = chunk_faces
        self._chunk_seconds = chunk_seconds
        self._max_bytes: int | None = None
        self._max_faces: int | None = None
        self._waiting: list[tuple[FrameTime, EncodedFace]] = []
        self.dropped: dict[str, int] = {}

    def pace(self, chunk_faces: int, chunk_seconds: float) -> None:
        """Fill chunks otherwise from now on; what a server takes at most still holds."""
        self._chunk_faces = min(chunk_faces, self._max_faces or chunk_faces)
        self._chunk_seconds = chunk_seconds

    def restrict(self, max_faces: int, max_bytes: int) -> None:
        """Keep to what a server takes in one chunk."""
        self._max_faces = max(max_faces, 1)
        self._chunk_faces = min(self._chunk_faces, self._max_faces)
        self._max_bytes = max_bytes

    def change(self, codec: ChunkCodec) -> list[Chunk]:
        """Code with another bundle from now on; returns what waited, coded with the one before."""
        done = self.flush()
        self._codec = codec
        return done

    def add(self, frame: FrameTime, faces: Sequence[EncodedFace]) -> list[Chunk]:
        """Take the faces of the next frame, none perhaps; return the chunks that are done."""
        done: list[Chunk] = []
        if self._waiting and frame.t_s - self._waiting[0][0].t_s >= self._chunk_seconds:
            done += self.flush()
        for face in faces:
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
        try:
            payload = self._codec.encode(steadied([face for _, face in items], self._codec.tables))
            if self._max_bytes is not None and len(payload) > self._max_bytes:
                raise LimitError(f"the server takes {self._max_bytes} bytes, not {len(payload)}")  # noqa: TRY301
        except (EncodeError, LimitError) as error:
            if len(items) == 1:
                self.dropped[error.code] = self.dropped.get(error.code, 0) + 1
                return []
            # One face that cannot be coded must not cost the others.
            half = len(items) // 2
            return self._encode(items[:half]) + self._encode(items[half:])
        return [Chunk(payload, tuple(frame for frame, _ in items))]
