"""Enhancement layers of a chunk of three faces. Whatever the bytes: an error of the bitstream, or
symbols that can be coded again; the same by either way of reading.

The first byte says which layer it is, and whether the rest is a layer (from RAW on) or a body that
gets a checksum that holds, without which hardly any input would come past it.
"""

import zlib
from collections.abc import Iterator
from functools import partial

import numpy as np

from mien.bitstream import Limits, checksum_bytes
from mien.errors import BitstreamError
from mien.layers import LAYER_HEADER_BYTES, LayerCodec
from mien.plain_reader import PlainReader
from tests.support.tiny_bundle import tiny_layer_tables

PAYLOAD, FACES = b"the chunk that the layers are of", 3
LIMITS = Limits(max_chunk_bytes=1024, max_faces=5)
# Of each layer, both ways of reading.
CODECS = [
    [
        LayerCodec(tables, index, LIMITS, partial(PlainReader, min_lanes=lanes))
        for lanes in (1 << 30, 1)
    ]
    for index, tables in enumerate(tiny_layer_tables())
]
RAW = 128
MAX_BYTES = 160


def one_input(data: bytes) -> bool:
    """Whether it is accepted."""
    kind, layer = next(iter(data), 0), data[1:]
    index = kind % len(CODECS)
    if kind < RAW:
        layer = _sealed(index, layer)
    plain, other = (_outcome(codec, layer) for codec in CODECS[index])
    assert plain == other
    if plain is None:
        return False
    codec = CODECS[index][0]
    again = codec.encode(PAYLOAD, codec.decode(PAYLOAD, FACES, layer))
    assert _outcome(codec, again) == plain
    return True


def _sealed(index: int, body: bytes) -> bytes:
    seed = zlib.crc32(bytes([index]), zlib.crc32(PAYLOAD))
    return checksum_bytes(zlib.crc32(body, seed)) + body


def _outcome(codec: LayerCodec, layer: bytes) -> list[object] | None:
    try:
        latents = codec.decode(PAYLOAD, FACES, layer)
    except BitstreamError:
        return None
    return [None if latent is None else latent.tolist() for latent in latents]


def seeds() -> Iterator[bytes]:
    drawn = np.random.default_rng(3)
    for index, (codec, _) in enumerate(CODECS):
        for there in (0b000, 0b101, 0b111):
            latents = [
                drawn.integers(-1, 2, codec.tables.shape, np.int32) if there >> face & 1 else None
                for face in range(FACES)
            ]
            layer = codec.encode(PAYLOAD, latents)
            yield bytes([index]) + layer[LAYER_HEADER_BYTES:]
            yield bytes([RAW + index]) + layer
