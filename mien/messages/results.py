"""What became of a chunk, and what was recognised in it."""

from dataclasses import dataclass
from enum import Enum
from typing import Self

from mien.bitstream import Box
from mien.errors import ProtocolError
from mien.v1 import recognition_pb2 as pb


class ItemStatus(Enum):
    """What became of a chunk; the values are those of the proto enum."""

    RECEIVED = 1
    RESULT = 2
    REJECTED = 3


@dataclass(frozen=True, slots=True)
class ItemError:
    """Why one item failed: a stable word, and a sentence for people."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Recognition:
    """One face, recognised. `probabilities` in the order of the bundle's expressions."""

    index: int
    time_ms: int
    track_id: int
    box: Box
    expression: str
    probability: float
    probabilities: tuple[float, ...]

    def to_proto(self) -> pb.Recognition:
        """As the message on the wire."""
        box = self.box
        return pb.Recognition(
            index=self.index,
            time_ms=self.time_ms,
            track_id=self.track_id,
            box=pb.Box(x=box.x, y=box.y, width=box.width, height=box.height),
            expression=self.expression,
            probability=self.probability,
            probabilities=self.probabilities,
        )

    @classmethod
    def from_proto(cls, message: pb.Recognition) -> Self:
        """From the message on the wire; probabilities come as float32 values."""
        box = message.box
        return cls(
            index=message.index,
            time_ms=message.time_ms,
            track_id=message.track_id,
            box=Box(x=box.x, y=box.y, width=box.width, height=box.height),
            expression=message.expression,
            probability=message.probability,
            probabilities=tuple(message.probabilities),
        )


@dataclass(frozen=True, slots=True)
class ChunkResult:
    """Everything that is known of one chunk. `error` is set exactly when it was REJECTED."""

    seq: int
    status: ItemStatus
    bundle_id: str = ""
    recognitions: tuple[Recognition, ...] = ()
    error: ItemError | None = None

    def to_proto(self) -> pb.ChunkResult:
        """As the message on the wire."""
        error = self.error
        return pb.ChunkResult(
            seq=self.seq,
            status=pb.ItemStatus.ValueType(self.status.value),
            error=pb.ItemError(code=error.code, message=error.message) if error else None,
            recognitions=[recognition.to_proto() for recognition in self.recognitions],
            bundle_id=self.bundle_id,
        )

    @classmethod
    def from_proto(cls, message: pb.ChunkResult) -> Self:
        """Raises ProtocolError for a status this version does not know."""
        try:
            status = ItemStatus(message.status)
        except ValueError:
            raise ProtocolError(
                f"result.status must be RECEIVED, RESULT or REJECTED, got {message.status}"
            ) from None
        error = message.error
        return cls(
            seq=message.seq,
            status=status,
            bundle_id=message.bundle_id,
            recognitions=tuple(Recognition.from_proto(item) for item in message.recognitions),
            error=ItemError(error.code, error.message) if message.HasField("error") else None,
        )
