"""Payloads. Whatever the bytes: an error of the bitstream, or faces of which they are the one
payload; the same by either way of reading, and no more faces than were declared.

The first byte says whether the rest is a payload, or a body that gets a header and a checksum that
hold, without which hardly any input would come past them.
"""

from collections.abc import Iterator
from functools import partial

from mien.bitstream import HEADER_BYTES, Box, EncodedFace, Envelope, Limits
from mien.codec import ChunkCodec, declared_faces
from mien.errors import BitstreamError
from mien.plain_reader import PlainReader
from tests.support.chunk_outcome import check_outcome
from tests.support.tiny_bundle import tiny_symbols, tiny_tables

BUNDLE_ID = "3a" * 32
LIMITS = Limits(max_chunk_bytes=1024, max_faces=5)
CODECS = [
    ChunkCodec(tiny_tables(), BUNDLE_ID, LIMITS, partial(PlainReader, min_lanes=lanes))
    for lanes in (1 << 30, 1)
]
MAX_BYTES = 160


def one_input(data: bytes) -> bool:
    """Whether it is accepted."""
    payload = data[1:]
    if data[:1] != b"r":
        payload = Envelope(BUNDLE_ID, 1 << 20).seal(payload)
    check_outcome(CODECS, payload, LIMITS)
    try:
        faces = CODECS[0].decode(payload)
    except BitstreamError:
        return False
    assert declared_faces(payload, LIMITS) == len(faces)
    return True


def seeds() -> Iterator[bytes]:
    for count in (1, 2, 5):
        drawn = tiny_symbols(count, seed=count)
        for step in (0, 1):  # one person who stands still; many who come once
            faces = [
                EncodedFace(33 * i, 7 + step * i, Box(10 + i, 20, 60, 64), drawn[step * i])
                for i in range(count)
            ]
            payload = CODECS[0].encode(faces)
            yield b"r" + payload
            yield b"s" + payload[HEADER_BYTES:]
