"""Enhancement layers: every way of reading them agrees, and only their own chunk's pass."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.paths import PATHS
from mien.bitstream import Limits
from mien.errors import (
    BitstreamError,
    ChecksumError,
    EncodeError,
    LimitError,
    MalformedError,
    SymbolRangeError,
    TablesError,
    TruncatedError,
)
from mien.integer_cdf import integer_cdf
from mien.layers import LAYER_HEADER_BYTES, LayerCodec, LayersCodec, layer_checksum
from mien.tables import CdfTables
from tests.support.chunks import latents
from tests.support.tiny_bundle import ENHANCEMENT, tiny_layer_tables

PAYLOAD = b"a chunk's payload"
TABLES = tiny_layer_tables()
CODECS = {name: LayersCodec(TABLES, reader=reader) for name, reader in PATHS.items()}
CODEC = CODECS["plain"]
faces = st.lists(st.none() | latents(ENHANCEMENT), min_size=1, max_size=4)


def outcome(codec: LayersCodec, count: int, layers: list[bytes]) -> object:
    """What comes out, or the class and words of the error."""
    try:
        read = codec.decode(PAYLOAD, count, layers)
    except BitstreamError as error:
        return type(error), str(error)
    return [None if latent is None else latent.tolist() for latent in read]


@given(faces)
def test_what_was_encoded_is_decoded_by_every_path(wanted):
    layers = CODEC.encode(PAYLOAD, wanted)
    assert len(layers) == ENHANCEMENT[0]
    expected = [None if latent is None else latent.tolist() for latent in wanted]
    for codec in CODECS.values():
        assert outcome(codec, len(wanted), layers) == expected


@given(faces)
def test_the_first_layers_do_without_the_last(wanted):
    layers = CODEC.encode(PAYLOAD, wanted)
    for read, latent in zip(CODEC.decode(PAYLOAD, len(wanted), layers[:1]), wanted, strict=True):
        if latent is None:
            assert read is None
        else:
            assert np.array_equal(read[0], latent[0])
            assert not read[1:].any()
    assert CODEC.decode(PAYLOAD, len(wanted), []) == [None] * len(wanted)


def test_a_face_is_in_no_layer_without_those_before():
    latent = np.zeros(ENHANCEMENT, np.int32)
    nobody, somebody = (CODEC.encode(PAYLOAD, [there]) for there in (None, latent))
    for codec in CODECS.values():
        assert codec.decode(PAYLOAD, 1, [somebody[0], nobody[1]])[0] is not None
        with pytest.raises(MalformedError, match="not those before"):
            codec.decode(PAYLOAD, 1, [nobody[0], somebody[1]])


def test_layers_of_two_sizes_are_no_enhancement():
    rows = [integer_cdf(np.ones(3))] * 2
    other = CdfTables.from_rows(rows, [-1, -1], (1, 1, 1), gains=np.ones((2, 1)))
    with pytest.raises(TablesError, match="height and width"):
        LayersCodec([TABLES[0], other])


@given(faces, st.integers(0, 1 << 16), st.integers(1, 255))
def test_a_damaged_layer_is_an_error_and_never_another_face(wanted, position, change):
    layers = CODEC.encode(PAYLOAD, wanted)
    damaged = bytearray(layers[0])
    damaged[position % len(damaged)] ^= change
    with pytest.raises(ChecksumError):
        CODEC.decode(PAYLOAD, len(wanted), [bytes(damaged), layers[1]])


@given(st.integers(1, 5), st.binary(max_size=60))
def test_whatever_the_bytes_all_paths_agree_and_what_decodes_can_be_encoded(count, body):
    own = LayerCodec(TABLES[0], 0)
    layer = layer_checksum(PAYLOAD, 0, body) + body
    answers = [outcome(codec, count, [layer]) for codec in CODECS.values()]
    assert answers == answers[:1] * len(answers)
    if isinstance(answers[0], list):
        read = own.decode(PAYLOAD, count, layer)
        again = own.decode(PAYLOAD, count, own.encode(PAYLOAD, read))
        for first, second in zip(read, again, strict=True):
            assert first is second is None or np.array_equal(first, second)
    else:
        assert answers[0][0] is MalformedError


def test_a_layer_of_another_chunk_or_out_of_order_does_not_pass():
    layers = CODEC.encode(PAYLOAD, [np.ones(ENHANCEMENT, np.int32)])
    with pytest.raises(ChecksumError):
        CODEC.decode(b"another chunk", 1, layers)
    with pytest.raises(ChecksumError):
        CODEC.decode(PAYLOAD, 1, layers[::-1])


def test_what_no_layer_can_be_is_refused():
    with pytest.raises(LimitError, match="at most 2 layers"):
        CODEC.decode(PAYLOAD, 1, [b""] * 3)
    with pytest.raises(TruncatedError):
        CODEC.decode(PAYLOAD, 1, [b"ab"])
    small = LayersCodec(TABLES, Limits(max_chunk_bytes=20))
    with pytest.raises(LimitError):
        small.decode(PAYLOAD, 1, [bytes(21)])
    noise = np.random.default_rng(1).integers(-99, 99, ENHANCEMENT).astype(np.int32)
    with pytest.raises(LimitError, match="fewer faces"):
        small.encode(PAYLOAD, [noise])


def test_symbols_that_no_layer_carries_are_refused():
    with pytest.raises(EncodeError, match="shape"):
        CODEC.encode(PAYLOAD, [np.zeros((2, 3, 3), np.int32)])
    with pytest.raises(SymbolRangeError):
        CODEC.encode(PAYLOAD, [np.full(ENHANCEMENT, 40_000, np.int32)])
    with pytest.raises(SymbolRangeError):  # what a latent that is not a number is cast to
        CODEC.encode(PAYLOAD, [np.full(ENHANCEMENT, np.iinfo(np.int32).min, np.int32)])


def test_a_face_without_layers_costs_next_to_nothing():
    first, _ = CODEC.encode(PAYLOAD, [None] * 8)
    assert len(first) <= LAYER_HEADER_BYTES + 1
