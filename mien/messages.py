"""The messages of the RPC contract as frozen dataclasses.

Protobuf types stop here: `to_proto` and `from_proto` are the only way between the two, and
`from_proto` of what a client sends checks every field it will be trusted for.
proto/mien/v1/recognition.proto says what the fields mean.
"""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Self, TypeVar

from mien.bitstream import Box
from mien.declaration import ContextOfUse, LegalException
from mien.errors import ProtocolError
from mien.v1 import recognition_pb2 as pb

MAX_BUNDLE_IDS = 64
MAX_TEXT = 500
MAX_EXPRESSION = 64
MAX_LATENCY_MS = 3_600_000

_Declared = TypeVar("_Declared", ContextOfUse, LegalException)

_DEVICE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_BUNDLE_ID = re.compile(r"[0-9a-f]{64}", re.ASCII)


def is_bundle_id(text: str) -> bool:
    """Whether a text is a bundle id, 64 hexadecimal digits, and so is safe in a path."""
    return _BUNDLE_ID.fullmatch(text) is not None


def _declared(kind: type[_Declared], field: str, number: int) -> _Declared:
    """A newer device may say what this version cannot judge: that is refused, not guessed at."""
    try:
        return kind(number)
    except ValueError:
        raise ProtocolError(
            f"hello.{field} must be 0 to {len(kind) - 1}, got {number}; update the server"
        ) from None


def check_device_id(field: str, text: str) -> None:
    """Raise ProtocolError, which names the field, for what is no device id."""
    if not _DEVICE_ID.fullmatch(text):
        raise ProtocolError(
            f"{field} must be 1 to 64 letters, digits, '.', '_' or '-', got {text[:80]!r}"
        )


class ItemStatus(Enum):
    """What became of a chunk; the values are those of the proto enum."""

    RECEIVED = 1
    RESULT = 2
    REJECTED = 3


@dataclass(frozen=True, slots=True)
class Hello:
    """Opens a stream. `bundle_ids` in the device's order of preference.

    max_latency_ms: a chunk that waits longer is not worth recognising to this device; 0: no bound.
    """

    device_id: str
    epoch: int
    epoch_start_unix_ms: int
    bundle_ids: tuple[str, ...]
    purpose: str = ""
    notice: str = ""
    max_latency_ms: int = 0
    fetches_bundles: bool = False
    takes_settled: bool = False
    context: ContextOfUse = ContextOfUse.UNDECLARED
    exception: LegalException = LegalException.NONE

    def to_proto(self) -> pb.Hello:
        """As the message on the wire."""
        return pb.Hello(
            device_id=self.device_id,
            epoch=self.epoch,
            epoch_start_unix_ms=self.epoch_start_unix_ms,
            bundle_ids=self.bundle_ids,
            purpose=self.purpose,
            notice=self.notice,
            max_latency_ms=self.max_latency_ms,
            fetches_bundles=self.fetches_bundles,
            takes_settled=self.takes_settled,
            context=pb.ContextOfUse.ValueType(self.context.value),
            exception=pb.LegalException.ValueType(self.exception.value),
        )

    @classmethod
    def from_proto(cls, message: pb.Hello) -> Self:
        """Raises ProtocolError that names the field which is out of its range."""
        check_device_id("hello.device_id", message.device_id)
        if len(message.bundle_ids) > MAX_BUNDLE_IDS:
            raise ProtocolError(
                f"hello.bundle_ids may name {MAX_BUNDLE_IDS} bundles, got {len(message.bundle_ids)}"
            )
        for bundle_id in message.bundle_ids:
            if not is_bundle_id(bundle_id):
                raise ProtocolError(
                    f"hello.bundle_ids must be 64 hexadecimal digits each, got {bundle_id[:80]!r}"
                )
        for name, text in (("purpose", message.purpose), ("notice", message.notice)):
            if len(text) > MAX_TEXT:
                raise ProtocolError(f"hello.{name} may have {MAX_TEXT} characters, got {len(text)}")
        if message.max_latency_ms > MAX_LATENCY_MS:
            raise ProtocolError(
                f"hello.max_latency_ms may be {MAX_LATENCY_MS}, got {message.max_latency_ms}"
            )
        return cls(
            device_id=message.device_id,
            epoch=message.epoch,
            epoch_start_unix_ms=message.epoch_start_unix_ms,
            bundle_ids=tuple(message.bundle_ids),
            purpose=message.purpose,
            notice=message.notice,
            max_latency_ms=message.max_latency_ms,
            fetches_bundles=message.fetches_bundles,
            takes_settled=message.takes_settled,
            context=_declared(ContextOfUse, "context", message.context),
            exception=_declared(LegalException, "exception", message.exception),
        )


@dataclass(frozen=True, slots=True)
class Welcome:
    """The answer to Hello: the bundle to encode with, where to go on, and the limits."""

    bundle_id: str
    acknowledged_seq: int
    credits: int
    target_face_bytes: int
    max_chunk_bytes: int
    max_chunk_faces: int

    def to_proto(self) -> pb.Welcome:
        """As the message on the wire."""
        return pb.Welcome(
            bundle_id=self.bundle_id,
            acknowledged_seq=self.acknowledged_seq,
            credits=self.credits,
            target_face_bytes=self.target_face_bytes,
            max_chunk_bytes=self.max_chunk_bytes,
            max_chunk_faces=self.max_chunk_faces,
        )

    @classmethod
    def from_proto(cls, message: pb.Welcome) -> Self:
        """From the message on the wire."""
        return cls(
            bundle_id=message.bundle_id,
            acknowledged_seq=message.acknowledged_seq,
            credits=message.credits,
            target_face_bytes=message.target_face_bytes,
            max_chunk_bytes=message.max_chunk_bytes,
            max_chunk_faces=message.max_chunk_faces,
        )


@dataclass(frozen=True, slots=True)
class EncodedChunk:
    """Several faces in one payload; `seq` counts from 1 within an epoch."""

    seq: int
    payload: bytes

    def to_proto(self) -> pb.EncodedChunk:
        """As the message on the wire."""
        return pb.EncodedChunk(seq=self.seq, payload=self.payload)

    @classmethod
    def from_proto(cls, message: pb.EncodedChunk) -> Self:
        """Raises ProtocolError for a seq of 0. The payload is not looked at."""
        if message.seq < 1:
            raise ProtocolError("chunk.seq counts from 1, got 0")
        return cls(seq=message.seq, payload=message.payload)


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


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """Every chunk of the epoch up to and including `seq` is settled."""

    seq: int


@dataclass(frozen=True, slots=True)
class Credits:
    """Chunks that may be sent in addition to those granted before."""

    chunks: int


@dataclass(frozen=True, slots=True)
class Settled:
    """Results, an acknowledgement and credits in one message; of the latter two 0 is none."""

    results: tuple[ChunkResult, ...]
    acknowledged_seq: int = 0
    credits: int = 0

    @property
    def parts(self) -> "tuple[Acknowledgement | ChunkResult | Credits, ...]":
        """The messages that it stands for, in their order."""
        acknowledgement = (Acknowledgement(self.acknowledged_seq),) if self.acknowledged_seq else ()
        granted = (Credits(self.credits),) if self.credits else ()
        return (*self.results, *acknowledgement, *granted)

    def to_proto(self) -> pb.Settled:
        """As the message on the wire."""
        return pb.Settled(
            results=[result.to_proto() for result in self.results],
            acknowledged_seq=self.acknowledged_seq,
            credits=self.credits,
        )

    @classmethod
    def from_proto(cls, message: pb.Settled) -> Self:
        """Raises ProtocolError as ChunkResult.from_proto does."""
        results = tuple(ChunkResult.from_proto(result) for result in message.results)
        return cls(results, message.acknowledged_seq, message.credits)


@dataclass(frozen=True, slots=True)
class Drain:
    """The server goes away and closes the stream after `grace_ms`."""

    grace_ms: int


@dataclass(frozen=True, slots=True)
class UseBundle:
    """The device is to encode with this bundle from now on."""

    bundle_id: str


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


Upward = Hello | EncodedChunk
Downward = Welcome | Acknowledgement | ChunkResult | Credits | Drain | UseBundle | Settled


def upward_to_proto(message: Upward) -> pb.StreamFacesRequest:
    """What a device sends on its stream."""
    match message:
        case Hello():
            return pb.StreamFacesRequest(hello=message.to_proto())
        case EncodedChunk():
            return pb.StreamFacesRequest(chunk=message.to_proto())


def upward_from_proto(request: pb.StreamFacesRequest) -> Upward:
    """Raises ProtocolError for an empty message and for fields out of their range."""
    match request.WhichOneof("message"):
        case "hello":
            return Hello.from_proto(request.hello)
        case "chunk":
            return EncodedChunk.from_proto(request.chunk)
    raise ProtocolError("a request must hold hello or chunk; is the client newer than the server?")


def downward_to_proto(message: Downward) -> pb.StreamFacesResponse:
    """What the server sends on a device's stream."""
    match message:
        case ChunkResult():
            return pb.StreamFacesResponse(result=message.to_proto())
        case Acknowledgement():
            return pb.StreamFacesResponse(acknowledgement=pb.Acknowledgement(seq=message.seq))
        case Credits():
            return pb.StreamFacesResponse(credits=pb.Credits(chunks=message.chunks))
        case Settled():
            return pb.StreamFacesResponse(settled=message.to_proto())
        case Welcome():
            return pb.StreamFacesResponse(welcome=message.to_proto())
        case Drain():
            return pb.StreamFacesResponse(drain=pb.Drain(grace_ms=message.grace_ms))
        case UseBundle():
            return pb.StreamFacesResponse(use_bundle=pb.UseBundle(bundle_id=message.bundle_id))


def downward_from_proto(response: pb.StreamFacesResponse) -> Downward | None:
    """None for a message this version does not know, which a device may ignore."""
    match response.WhichOneof("message"):
        case "result":
            return ChunkResult.from_proto(response.result)
        case "acknowledgement":
            return Acknowledgement(response.acknowledgement.seq)
        case "credits":
            return Credits(response.credits.chunks)
        case "settled":
            return Settled.from_proto(response.settled)
        case "welcome":
            return Welcome.from_proto(response.welcome)
        case "drain":
            return Drain(response.drain.grace_ms)
        case "use_bundle":
            return UseBundle(response.use_bundle.bundle_id)
    return None
