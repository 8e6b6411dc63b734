"""What people say of faces that were recognised, and what became of that."""

from dataclasses import dataclass
from enum import Enum
from typing import Self

from mien.errors import ProtocolError
from mien.messages.ids import check_device_id
from mien.messages.results import ItemError
from mien.v1 import recognition_pb2 as pb

MAX_EXPRESSION = 64


class LabelStatus(Enum):
    """What became of a label; the values are those of the proto enum."""

    AGREED = 1
    DISAGREED = 2
    UNKNOWN = 3


@dataclass(frozen=True, slots=True)
class FaceLabel:
    """What a person says of the face (device, epoch, seq, index)."""

    device_id: str
    epoch: int
    seq: int
    index: int
    expression: str

    def to_proto(self) -> pb.FaceLabel:
        """As the message on the wire."""
        return pb.FaceLabel(
            device_id=self.device_id,
            epoch=self.epoch,
            seq=self.seq,
            index=self.index,
            expression=self.expression,
        )

    @classmethod
    def from_proto(cls, message: pb.FaceLabel) -> Self:
        """Raises ProtocolError that names the field which is out of its range."""
        check_device_id("label.device_id", message.device_id)
        if message.seq < 1:
            raise ProtocolError("label.seq counts from 1, got 0")
        if not 1 <= len(message.expression) <= MAX_EXPRESSION:
            raise ProtocolError(
                f"label.expression must have 1 to {MAX_EXPRESSION} characters, "
                f"got {len(message.expression)}"
            )
        return cls(
            device_id=message.device_id,
            epoch=message.epoch,
            seq=message.seq,
            index=message.index,
            expression=message.expression,
        )


@dataclass(frozen=True, slots=True)
class LabelResult:
    """What became of one label. `error` is set exactly when it was UNKNOWN."""

    status: LabelStatus
    error: ItemError | None = None

    def to_proto(self) -> pb.LabelResult:
        """As the message on the wire."""
        error = self.error
        return pb.LabelResult(
            status=pb.LabelStatus.ValueType(self.status.value),
            error=pb.ItemError(code=error.code, message=error.message) if error else None,
        )

    @classmethod
    def from_proto(cls, message: pb.LabelResult) -> Self:
        """Raises ProtocolError for a status this version does not know."""
        try:
            status = LabelStatus(message.status)
        except ValueError:
            raise ProtocolError(
                f"result.status must be AGREED, DISAGREED or UNKNOWN, got {message.status}"
            ) from None
        error = message.error
        return cls(
            status, ItemError(error.code, error.message) if message.HasField("error") else None
        )
