"""Enhancement layers of a chunk of three faces. Whatever the bytes: an error of the bitstream, or
symbols that can be coded again. (That all ways of reading agree: benchmarks.layer_paths.)

The first byte says which layer it is, and whether the rest is a layer (from RAW on) or a body that
gets a checksum that holds, without which hardly any input would come past it.
"""

from collections.abc import Iterator

import numpy as np

from mien.bitstream import Limits
from mien.errors import BitstreamError
from mien.layers import LAYER_HEADER_BYTES, LayerCodec, layer_checksum
from tests.support.tiny_bundle import tiny_layer_tables

PAYLOAD, FACES = b"the chunk that the layers are of", 3
LIMITS = Limits(max_chunk_bytes=1024, max_faces=5)
CODECS = [LayerCodec(tables, index, LIMITS) for index, tables in enumerate(tiny_layer_tables())]
RAW = 128
MAX_BYTES = 160


def one_input(data: bytes) -> bool:
    """Whether it is accepted."""
    kind, layer = next(iter(data), 0), data[1:]
    index = kind % len(CODECS)
    if kind < RAW:
        layer = layer_checksum(PAYLOAD, index, layer) + layer
    codec = CODECS[index]
    read = _outcome(codec, layer)
    if read is None:
        return False
    again = codec.encode(PAYLOAD, codec.decode(PAYLOAD, FACES, layer))
    assert _outcome(codec, again) == read
    return True


def _outcome(codec: LayerCodec, layer: bytes) -> list[object] | None:
    try:
        latents = codec.decode(PAYLOAD, FACES, layer)
    except BitstreamError:
        return None
    return [None if latent is None else latent.tolist() for latent in latents]


def seeds() -> Iterator[bytes]:
    drawn = np.random.default_rng(3)
    for index, codec in enumerate(CODECS):
        for there in (0b000, 0b101, 0b111):
            latents = [
                drawn.integers(-1, 2, codec.tables.shape, np.int32) if there >> face & 1 else None
                for face in range(FACES)
            ]
            layer = codec.encode(PAYLOAD, latents)
            yield bytes([index]) + layer[LAYER_HEADER_BYTES:]
            yield bytes([RAW + index]) + layer
