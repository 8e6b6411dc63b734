"""What those who watch are sent."""

from dataclasses import dataclass
from typing import Self

from mien.messages.results import Recognition
from mien.v1 import recognition_pb2 as pb


@dataclass(frozen=True, slots=True)
class WatchedChunk:
    """The recognitions of one chunk as those who watch see them, with where they came from.

    `dropped` counts the recognitions, not the chunks, that this watcher has lost so far.
    `resume_token`, opaque, lets it go on after this message.
    """

    device_id: str
    epoch: int
    seq: int
    epoch_start_unix_ms: int
    bundle_id: str
    recognitions: tuple[Recognition, ...]
    expressions: tuple[str, ...]
    dropped: int
    resume_token: bytes = b""

    def to_proto(self) -> pb.WatchRecognitionsResponse:
        """As the message on the wire."""
        return pb.WatchRecognitionsResponse(
            device_id=self.device_id,
            epoch=self.epoch,
            seq=self.seq,
            epoch_start_unix_ms=self.epoch_start_unix_ms,
            bundle_id=self.bundle_id,
            recognitions=[recognition.to_proto() for recognition in self.recognitions],
            expressions=self.expressions,
            dropped=self.dropped,
            resume_token=self.resume_token,
        )

    @classmethod
    def from_proto(cls, message: pb.WatchRecognitionsResponse) -> Self:
        """From the message on the wire."""
        return cls(
            device_id=message.device_id,
            epoch=message.epoch,
            seq=message.seq,
            epoch_start_unix_ms=message.epoch_start_unix_ms,
            bundle_id=message.bundle_id,
            recognitions=tuple(Recognition.from_proto(item) for item in message.recognitions),
            expressions=tuple(message.expressions),
            dropped=message.dropped,
            resume_token=message.resume_token,
        )
