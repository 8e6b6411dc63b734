"""Messages of both directions. Whatever the bytes: no message of protobuf, a ProtocolError, or what
is written back the same, and begins at a time that there is.

The first byte says whose message the rest is.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

from google.protobuf.message import DecodeError

from mien.bitstream import Box
from mien.errors import ProtocolError
from mien.messages.downward import (
    Acknowledgement,
    Credits,
    Settled,
    UseBundle,
    Welcome,
    downward_from_proto,
    downward_to_proto,
)
from mien.messages.labels import FaceLabel, LabelResult
from mien.messages.results import ChunkResult, ItemError, ItemStatus, Recognition
from mien.messages.upward import EncodedChunk, Hello, upward_from_proto, upward_to_proto
from mien.messages.watched import WatchedChunk
from mien.v1 import recognition_pb2 as pb

MAX_BYTES = 1024
BUNDLE_ID = "3a" * 32


def one_input(data: bytes) -> bool:
    """Whether it is accepted."""
    kind, rest = data[:1], data[1:]
    try:
        if kind == b"u":
            sent = upward_from_proto(pb.StreamFacesRequest.FromString(rest))
            assert same(upward_from_proto(upward_to_proto(sent)), sent)
            if isinstance(sent, Hello):
                datetime.fromtimestamp(sent.epoch_start_unix_ms / 1000, UTC)
        elif kind == b"d":
            answer = downward_from_proto(pb.StreamFacesResponse.FromString(rest))
            if answer is not None:
                assert same(downward_from_proto(downward_to_proto(answer)), answer)
        elif kind == b"w":
            WatchedChunk.from_proto(pb.WatchRecognitionsResponse.FromString(rest))
        elif kind == b"l":
            FaceLabel.from_proto(pb.FaceLabel.FromString(rest))
        else:
            LabelResult.from_proto(pb.LabelResult.FromString(rest))
    except (DecodeError, ProtocolError):
        return False
    return True


def same(one: object, other: object) -> bool:
    """Equal, or both with a NaN, which equals nothing."""
    return one == other or repr(one) == repr(other)


def seeds() -> Iterator[bytes]:
    hello = Hello("door", 1, 1_700_000_000_000, (BUNDLE_ID,), "a test", "none", 100)
    face = Recognition(0, 7, 40, Box(1, 2, 30, 40), "surprise", 0.75, (0.25, 0.75))
    result = ChunkResult(1, ItemStatus.RESULT, BUNDLE_ID, (face,))
    refused = ChunkResult(2, ItemStatus.REJECTED, error=ItemError("truncated", "too short"))
    without_clock = replace(hello, epoch_start_unix_ms=0)
    for sent in (hello, without_clock, EncodedChunk(1, b"payload")):
        yield b"u" + upward_to_proto(sent).SerializeToString()
    for answer in (
        *(result, refused, Acknowledgement(3), Credits(4), UseBundle(BUNDLE_ID)),
        Settled((result, refused), 2, 2),
        Welcome(BUNDLE_ID, 0, 8, 30, 16384, 64),
    ):
        yield b"d" + downward_to_proto(answer).SerializeToString()
    watched = pb.WatchRecognitionsResponse(device_id="door", epoch=1, seq=1)
    watched.recognitions.add().CopyFrom(face.to_proto())
    yield b"w" + watched.SerializeToString()
    yield b"l" + FaceLabel("door", 1, 1, 0, "surprise").to_proto().SerializeToString()
    yield b"r" + pb.LabelResult(status=1).SerializeToString()
