"""The bytes on the wire and on disk are those that were agreed."""

import numpy as np
import pytest

from benchmarks.paths import PATHS
from mien.bitstream import EncodedFace, payload_tag
from mien.bundle import load_bundle
from mien.codec import ChunkCodec
from mien.layers import LayersCodec
from mien.manifest import Manifest
from mien.reading import ReaderKind
from mien.tables import CdfTables
from tests.contract.fixtures import (
    FOLDER,
    LAYER_TABLES,
    MANIFEST,
    TABLES,
    GoldenLayers,
    read_bundle_id,
    read_chunks,
    read_layers,
)

GOLDEN = read_chunks()
GOLDEN_LAYERS = read_layers()


@pytest.fixture(scope="module")
def codec() -> ChunkCodec:
    return load_bundle(FOLDER, ["tables.npz"]).codec()


@pytest.mark.parametrize(("faces", "payload"), GOLDEN, ids=range(len(GOLDEN)))
def test_golden_payloads_decode_to_their_faces(
    codec: ChunkCodec, faces: tuple[EncodedFace, ...], payload: bytes
):
    assert codec.decode(payload) == faces


@pytest.mark.parametrize(("faces", "payload"), GOLDEN, ids=range(len(GOLDEN)))
def test_golden_faces_are_coded_to_their_payloads(
    codec: ChunkCodec, faces: tuple[EncodedFace, ...], payload: bytes
):
    assert codec.encode(faces).hex() == payload.hex()


@pytest.mark.parametrize("reader", PATHS.values(), ids=PATHS.keys())
@pytest.mark.parametrize("golden", GOLDEN_LAYERS, ids=range(len(GOLDEN_LAYERS)))
def test_golden_layers_are_what_they_stand_for(golden: GoldenLayers, reader: ReaderKind):
    codec = LayersCodec([CdfTables.load(LAYER_TABLES.read_bytes())] * 2, reader=reader)
    read = codec.decode(golden.payload, len(golden.enhancements), golden.layers)
    for found, symbols, stood in zip(read, golden.enhancements, golden.values, strict=True):
        if symbols is None or found is None:
            assert found is symbols is None
        else:
            assert np.array_equal(found, symbols)
            assert np.array_equal(codec.values(found[None])[0], stood)
    assert codec.encode(golden.payload, golden.enhancements) == golden.layers


def test_the_golden_manifest_has_its_bundle_id():
    bundle = load_bundle(FOLDER, ["tables.npz"])
    assert bundle.bundle_id == read_bundle_id()
    assert {payload_tag(payload) for _, payload in GOLDEN} == {int(bundle.bundle_id[0], 16)}


def test_the_golden_manifest_is_written_to_its_bytes():
    data = MANIFEST.read_bytes()
    assert Manifest.from_json(data).to_json() == data


def test_the_golden_tables_keep_their_arrays():
    tables = load_bundle(FOLDER, ["tables.npz"]).tables
    assert TABLES.stat().st_size < 8192
    assert tables.shape == (4, 3, 3)
    assert tables.counts(tables.first_row(2, 0))[:4].tolist() == [0, 799, 1749, 2878]
    assert tables.gains[:, 0].tolist() == [0.25, 0.5, 1.0]
