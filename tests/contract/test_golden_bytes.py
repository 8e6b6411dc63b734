"""The bytes on the wire and on disk are those that were agreed."""

import pytest

from mien.bitstream import EncodedFace, payload_tag
from mien.bundle import load_bundle
from mien.codec import ChunkCodec
from mien.manifest import Manifest
from tests.contract.fixtures import FOLDER, MANIFEST, TABLES, read_bundle_id, read_chunks

GOLDEN = read_chunks()


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
