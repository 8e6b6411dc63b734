"""Bundles: nothing is used that is not what the manifest, and so the bundle id, says."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mien.bitstream import Box, EncodedFace, bundle_tag
from mien.bundle import (
    ALL_FILES,
    EDGE_FILES,
    Bundle,
    BundleRepository,
    load_bundle,
    write_manifest,
)
from mien.errors import BundleError, BundleHashError, ManifestError, UnknownBundleError
from mien.manifest import MAX_MANIFEST_BYTES, Manifest
from tests.support.tiny_bundle import EXPRESSIONS, SHAPE, make_tiny_bundle, tiny_symbols


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_tiny_bundle(tmp_path_factory.mktemp("pristine") / "tiny")


@pytest.fixture
def folder(pristine: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine.folder, tmp_path / "tiny"))


def change(folder: Path, edit: Callable[[dict], object]) -> None:
    """Edit the manifest in place."""
    document = json.loads((folder / "manifest.json").read_bytes())
    edit(document)
    (folder / "manifest.json").write_text(json.dumps(document))


def test_the_bundle_id_is_the_hash_of_the_manifest(pristine):
    manifest = (pristine.folder / "manifest.json").read_bytes()
    assert pristine.bundle_id == hashlib.sha256(manifest).hexdigest()


def test_a_bundle_says_what_was_written(pristine):
    manifest = pristine.manifest
    assert manifest.name == "tiny"
    assert manifest.expressions == EXPRESSIONS
    assert (manifest.image.channels, manifest.image.height, manifest.image.width) == (1, 48, 48)
    assert len(manifest.image.landmarks) == 5
    assert manifest.latent.shape == pristine.tables.shape == SHAPE
    assert manifest.figures["accuracy"] == 0.125
    assert set(manifest.files) == set(ALL_FILES) - {"manifest.json"}


def test_the_same_files_make_the_same_bundle_id(pristine, tmp_path):
    assert make_tiny_bundle(tmp_path / "again").bundle_id == pristine.bundle_id
    assert make_tiny_bundle(tmp_path / "other", name="other").bundle_id != pristine.bundle_id


def test_the_edge_needs_only_its_own_files(folder):
    for name in set(ALL_FILES) - set(EDGE_FILES):
        (folder / name).unlink()
    bundle = load_bundle(folder)
    faces = (EncodedFace(0, 1, Box(0, 0, 9, 9), tiny_symbols(1)[0]),)
    assert bundle.codec().decode(bundle.codec().encode(faces)) == faces
    with pytest.raises(BundleHashError, match=r"classifier.onnx is missing"):
        load_bundle(folder, ALL_FILES)


@pytest.mark.parametrize("name", [name for name in ALL_FILES if name != "manifest.json"])
def test_a_changed_file_is_refused(folder, name):
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(BundleHashError, match=name):
        load_bundle(folder, ALL_FILES)


@pytest.mark.parametrize("name", ALL_FILES)
def test_a_missing_file_is_refused(folder, name):
    (folder / name).unlink()
    with pytest.raises(BundleHashError, match=name):
        load_bundle(folder, ALL_FILES)


@pytest.mark.parametrize("change_size", [lambda data: data[:-1], lambda data: data + b"\0"])
def test_a_file_of_another_size_is_refused(folder, change_size):
    path = folder / "analysis.onnx"
    path.write_bytes(change_size(path.read_bytes()))
    with pytest.raises(BundleHashError, match=r"analysis.onnx"):
        load_bundle(folder)


def test_a_file_of_another_size_than_the_manifest_says_is_refused(folder):
    change(folder, lambda m: m["files"]["tables.npz"].update(bytes=1))
    with pytest.raises(BundleHashError, match=r"tables\.npz"):
        load_bundle(folder)


def test_a_file_changed_after_loading_is_refused_when_read(folder):
    bundle = load_bundle(folder)
    data = (folder / "analysis.onnx").read_bytes()
    assert bundle.read("analysis.onnx") == data
    (folder / "analysis.onnx").write_bytes(data[::-1])
    with pytest.raises(BundleHashError):
        bundle.read("analysis.onnx")


def test_the_manifest_itself_is_verified_when_read(folder):
    bundle = load_bundle(folder)
    assert hashlib.sha256(bundle.read("manifest.json")).hexdigest() == bundle.bundle_id
    change(folder, lambda m: m.update(name="changed"))
    with pytest.raises(BundleHashError):
        bundle.read("manifest.json")


def test_a_pipe_in_place_of_a_file_does_not_hang(folder):
    (folder / "analysis.onnx").unlink()
    os.mkfifo(folder / "analysis.onnx")
    with pytest.raises(BundleHashError, match="not a file"):
        load_bundle(folder)


def test_another_bundle_than_the_expected_one_is_refused(folder, pristine):
    assert load_bundle(folder, bundle_id=pristine.bundle_id).bundle_id == pristine.bundle_id
    change(folder, lambda m: m.update(name="changed"))
    with pytest.raises(BundleHashError, match="expected was"):
        load_bundle(folder, bundle_id=pristine.bundle_id)


@pytest.mark.parametrize(
    "name",
    [
        "../tables.npz",
        "/etc/passwd",
        "a/b",
        "a\\b",
        "..",
        ".hidden",
        "",
        "manifest.json",
        "nul\0",
        "ünicode",
        "line\n",
        "a" * 65,
        "C:x",
    ],
)
def test_a_manifest_that_names_anything_but_plain_files_is_refused(folder, name):
    change(folder, lambda m: m["files"].update({name: m["files"]["tables.npz"]}))
    with pytest.raises(ManifestError):
        load_bundle(folder)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "unknown.onnx", "", "..", "figures"])
def test_only_files_of_the_manifest_can_be_asked_for(pristine, name):
    with pytest.raises(ManifestError, match="no file"):
        pristine.path(name)
    with pytest.raises(ManifestError, match="no file"):
        pristine.read(name)
    with pytest.raises(ManifestError, match="no file"):
        load_bundle(pristine.folder, [name])


EDITS: dict[str, Callable[[dict], object]] = {
    "format": lambda m: m.update(format=1),
    "next format": lambda m: m.update(format=3),
    "format bool": lambda m: m.update(format=True),
    "no format": lambda m: m.pop("format"),
    "name": lambda m: m.update(name=5),
    "name text": lambda m: m.update(name="a\u202eb"),
    "created": lambda m: m.update(created="yesterday"),
    "created week": lambda m: m.update(created="2026-W01-1"),
    "expressions": lambda m: m.update(expressions="neutral"),
    "expressions kinds": lambda m: m.update(expressions=[1, 2]),
    "expressions twice": lambda m: m.update(expressions=["a", "a"]),
    "expressions none": lambda m: m.update(expressions=[]),
    "image": lambda m: m.update(image=[]),
    "image size": lambda m: m["image"].update(height=0),
    "image size huge": lambda m: m["image"].update(width=1 << 40),
    "image size float": lambda m: m["image"].update(width=48.0),
    "landmarks few": lambda m: m["image"]["landmarks"].pop(),
    "landmarks text": lambda m: m["image"].update(landmarks="ab"),
    "landmarks kinds": lambda m: m["image"].update(landmarks=[["1", "2"]] * 5),
    "landmarks far": lambda m: m["image"].update(landmarks=[[1e9, 0]] * 5),
    "landmarks huge": lambda m: m["image"].update(landmarks=[[10**400, 0]] * 5),
    "landmarks null": lambda m: m["image"].update(landmarks=[None] * 5),
    "latent": lambda m: m["latent"].update(channels=-4),
    "latent other": lambda m: m["latent"].update(channels=9),
    "latent missing": lambda m: m["latent"].pop("width"),
    "figures": lambda m: m.update(figures=[1]),
    "figures text": lambda m: m["figures"].update(note="\x1b[2J"),
    "figures huge": lambda m: m["figures"].update(a=10**400),
    "figures bottomless": lambda m: m["figures"].update(a=json.loads("[" * 500 + "]" * 500)),
    "expressions bottomless": lambda m: m.update(expressions=json.loads("[" * 900 + "]" * 900)),
    "expressions endless": lambda m: m.update(expressions=["x" * 100] * 9000),
    "figures bool": lambda m: m["figures"].update(good=True),
    "figures name": lambda m: m["figures"].update({"\x1b[2J": 1}),
    "figures deep": lambda m: m["figures"].update(a={"b": [1, {"c": None}]}),
    "files": lambda m: m.update(files=[]),
    "files missing": lambda m: m.pop("files"),
    "file kind": lambda m: m["files"].update({"tables.npz": "abc"}),
    "file hash": lambda m: m["files"]["tables.npz"].update(sha256="A" * 64),
    "file hash kind": lambda m: m["files"]["tables.npz"].update(sha256=5),
    "file size kind": lambda m: m["files"]["tables.npz"].update(bytes=True),
    "file size below zero": lambda m: m["files"]["tables.npz"].update(bytes=-1),
    "file size huge": lambda m: m["files"]["tables.npz"].update(bytes=1 << 40),
    "file more": lambda m: m["files"]["tables.npz"].update(url="http://example.org"),
    "many files": lambda m: m["files"].update(
        {f"f{i}": m["files"]["tables.npz"] for i in range(99)}
    ),
    "more": lambda m: m.update(extra=1),
    "more and more": lambda m: m.update({f"extra{i}" * 50: 1 for i in range(99)}),
    "latent huge": lambda m: m["latent"].update(channels=10**4000),
    "no tables": lambda m: m["files"].pop("tables.npz"),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_a_manifest_of_another_form_is_refused(folder, edit):
    change(folder, edit)
    with pytest.raises(ManifestError) as caught:
        load_bundle(folder)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"format": NaN}',
        b'{"format": 1' + b"0" * 5000 + b"}",
        b'{"format": Infinity}',
    ],
)
def test_a_manifest_that_is_not_json_is_refused(folder, data):
    (folder / "manifest.json").write_bytes(data)
    with pytest.raises(ManifestError):
        load_bundle(folder)


def test_a_manifest_over_the_limit_is_refused(folder):
    (folder / "manifest.json").write_bytes(b" " * (MAX_MANIFEST_BYTES + 1))
    with pytest.raises(BundleHashError, match="more than"):
        load_bundle(folder)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(st.data())
def test_any_value_in_any_field_is_taken_whole_or_refused(pristine, data):
    document = json.loads((pristine.folder / "manifest.json").read_bytes())
    section = data.draw(st.sampled_from([document, document["image"], document["latent"]]))
    section[data.draw(st.sampled_from(sorted(section)))] = data.draw(json_values)
    text = json.dumps(document).encode()
    try:
        taken = Manifest.from_json(text)
    except ManifestError:
        return
    assert Manifest.from_json(taken.to_json()) == taken


def test_a_manifest_that_could_not_be_read_back_is_not_written(folder, pristine):
    (folder / "manifest.json").unlink()
    manifest = pristine.manifest
    with pytest.raises(ManifestError, match="expressions"):
        write_manifest(
            folder,
            name="tiny",
            created="2026-01-01",
            expressions=["only one"],
            image=manifest.image,
            latent=manifest.latent,
            figures={},
        )
    assert not (folder / "manifest.json").exists()


@pytest.mark.parametrize("figure", [float("nan"), np.float32(20.5), "fine", None])
def test_figures_that_are_no_numbers_are_not_written(folder, pristine, figure):
    manifest = pristine.manifest
    with pytest.raises(ManifestError, match="figures"):
        write_manifest(
            folder,
            name="tiny",
            created="2026-01-01",
            expressions=EXPRESSIONS,
            image=manifest.image,
            latent=manifest.latent,
            figures={"psnr_db": figure},
        )


def test_a_folder_is_a_repository_of_the_bundles_in_it(tmp_path):
    old = make_tiny_bundle(tmp_path / "old", name="old", created="2025-12-31")
    new = make_tiny_bundle(tmp_path / "new", name="new", created="2026-02-01")
    (tmp_path / "no-bundle").mkdir()
    repository = BundleRepository(tmp_path)
    assert [bundle.manifest.name for bundle in repository.bundles] == ["new", "old"]
    assert repository.preferred.bundle_id == new.bundle_id
    assert repository.get(old.bundle_id).folder == old.folder
    for bundle in (old, new):
        found = repository.with_tag(bundle_tag(bundle.bundle_id))
        assert bundle.bundle_id in [other.bundle_id for other in found]


def test_a_bundle_folder_is_a_repository_of_one(pristine):
    assert BundleRepository(pristine.folder).preferred.bundle_id == pristine.bundle_id


def test_an_unknown_bundle_is_named(pristine):
    repository = BundleRepository(pristine.folder)
    with pytest.raises(UnknownBundleError, match="there are"):
        repository.get("0" * 64)
    assert repository.with_tag(bundle_tag(pristine.bundle_id) ^ 1) == ()


def test_a_folder_without_bundles_is_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UnknownBundleError, match="no bundle"):
            BundleRepository(folder)


def test_one_damaged_bundle_stops_the_repository(folder):
    (folder / "classifier.onnx").write_bytes(b"")
    with pytest.raises(BundleError):
        BundleRepository(folder.parent)


def test_a_manifest_without_tables_has_no_codec(pristine):
    document = json.loads((pristine.folder / "manifest.json").read_bytes())
    del document["files"]["tables.npz"]
    manifest = Manifest.from_json(json.dumps(document).encode())
    with pytest.raises(ManifestError, match=r"tables\.npz"):
        _ = manifest.codec_id
