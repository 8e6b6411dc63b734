"""What the server sends on a device's stream: one Welcome, then answers, credits and requests."""

from dataclasses import dataclass
from typing import Self

from mien.messages.results import ChunkResult
from mien.v1 import recognition_pb2 as pb


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
class RequestLayers:
    """The device is asked for the enhancement layers of its next chunk."""


Downward = (
    Welcome | Acknowledgement | ChunkResult | Credits | Drain | UseBundle | Settled | RequestLayers
)


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
        case RequestLayers():
            return pb.StreamFacesResponse(request_layers=pb.RequestLayers())


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
        case "request_layers":
            return RequestLayers()
    return None
