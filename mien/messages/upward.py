"""What a device sends on its stream: one Hello, then chunks of encoded faces."""

from dataclasses import dataclass
from typing import Self, TypeVar

from mien.declaration import ContextOfUse, LegalException
from mien.errors import ProtocolError
from mien.messages.ids import check_device_id, is_bundle_id
from mien.v1 import recognition_pb2 as pb

MAX_BUNDLE_IDS = 64
MAX_TEXT = 500
MAX_LAYERS = 8
MAX_LATENCY_MS = 3_600_000
# The year 3000: a clock may be wrong, and yet what it says must be a time to whoever reads it.
MAX_UNIX_MS = 32_503_680_000_000

_Declared = TypeVar("_Declared", ContextOfUse, LegalException)


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
        if not 0 <= message.epoch_start_unix_ms <= MAX_UNIX_MS:
            raise ProtocolError(
                f"hello.epoch_start_unix_ms must be 0 to {MAX_UNIX_MS}, milliseconds since 1970, "
                f"got {message.epoch_start_unix_ms}"
            )
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
class EncodedChunk:
    """Several faces in one payload; `seq` counts from 1 within an epoch.

    layers: see mien.layers. trace_context: empty, or what `mien.spans` makes of it: any bytes a
    client likes.
    """

    seq: int
    payload: bytes
    layers: tuple[bytes, ...] = ()
    trace_context: bytes = b""

    def to_proto(self) -> pb.EncodedChunk:
        """As the message on the wire."""
        return pb.EncodedChunk(
            seq=self.seq,
            payload=self.payload,
            layers=self.layers,
            trace_context=self.trace_context,
        )

    @classmethod
    def from_proto(cls, message: pb.EncodedChunk) -> Self:
        """Raises ProtocolError for a seq of 0, and too many layers. No byte is looked at."""
        if message.seq < 1:
            raise ProtocolError("chunk.seq counts from 1, got 0")
        if len(message.layers) > MAX_LAYERS:
            raise ProtocolError(
                f"chunk.layers may be {MAX_LAYERS} at most, got {len(message.layers)}"
            )
        return cls(message.seq, message.payload, tuple(message.layers), message.trace_context)


Upward = Hello | EncodedChunk


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


def _declared(kind: type[_Declared], field: str, number: int) -> _Declared:
    """A newer device may say what this version cannot judge: that is refused, not guessed at."""
    try:
        return kind(number)
    except ValueError:
        raise ProtocolError(
            f"hello.{field} must be 0 to {len(kind) - 1}, got {number}; update the server"
        ) from None
