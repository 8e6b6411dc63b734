"""Descriptions for people."""

from pathlib import Path

import numpy as np
import pytest

from mien.bitstream import Box, EncodedFace
from mien.bundle import Bundle, BundleRepository
from mien.errors import (
    BundleHashError,
    ChecksumError,
    LimitError,
    SourceError,
    TruncatedError,
    UnknownBundleError,
    VersionError,
)
from mien.inspect import describe, expected_bits
from mien.range_coder import TOTAL
from mien.tables import COST_UNIT
from tests.support.tiny_bundle import make_foreign_bundle, make_tiny_bundle, tiny_symbols


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_tiny_bundle(tmp_path / "tiny")


@pytest.fixture
def payload_file(bundle: Bundle, tmp_path: Path) -> Path:
    faces = [EncodedFace(40 * i, 7, Box(-3, 5, 60, 80), s) for i, s in enumerate(tiny_symbols(3))]
    path = tmp_path / "chunk.bin"
    path.write_bytes(bundle.codec().encode(faces))
    return path


def test_a_bundle_is_described_by_its_folder_or_manifest(bundle):
    text = describe(bundle.folder)
    assert text == describe(bundle.folder / "manifest.json")
    assert bundle.bundle_id in text
    assert "surprise" in text
    assert "latent 4×3×3" in text
    assert "accuracy: 0.125" in text
    assert "9 files, verified" in text


def test_each_quality_levels_figures_have_a_line(tmp_path):
    figures = {"levels": [{"accuracy": 0.81, "bytes": 6.27}, {"accuracy": 0.825, "bytes": 19.3}]}
    folder = make_tiny_bundle(tmp_path / "levels", figures={**figures, "odd": [[1], 2]}).folder
    lines = [line.strip() for line in describe(folder).splitlines()]
    first = lines.index("levels:") + 1
    assert lines[first : first + 2] == [
        "0: accuracy 0.81, bytes 6.27",
        "1: accuracy 0.825, bytes 19.3",
    ]
    assert lines[lines.index("odd:") + 1] == "0: [1]"


def test_a_bundle_with_the_edges_files_only_is_described(bundle):
    (bundle.folder / "classifier.onnx").unlink()
    assert "not here" in describe(bundle.folder)


def test_a_damaged_bundle_is_not_described(bundle):
    (bundle.folder / "classifier.onnx").write_bytes(b"")
    with pytest.raises(BundleHashError, match=r"classifier\.onnx"):
        describe(bundle.folder)


def test_a_payload_without_its_bundle_shows_its_header(payload_file, bundle):
    text = describe(payload_file)
    assert f"chunk of {payload_file.stat().st_size} bytes" in text
    assert f"whose id starts {bundle.bundle_id[0]}" in text


def test_a_payload_with_its_bundle_shows_its_faces(payload_file, bundle):
    text = describe(payload_file, BundleRepository(bundle.folder))
    assert "3 faces" in text
    assert "face 2: 80 ms, track 7, box 60×80 at (-3, 5)" in text


def test_a_damaged_payload_is_named(payload_file, bundle):
    data = payload_file.read_bytes()
    repository = BundleRepository(bundle.folder)
    for damaged, expected in (
        (data[:-1], ChecksumError),
        (data[:3], TruncatedError),
        (b"\xff" + data[1:], VersionError),
        (data.ljust(20_000, b"\0"), LimitError),
    ):
        payload_file.write_bytes(damaged)
        with pytest.raises(expected):
            describe(payload_file, repository)


def test_a_payload_of_an_unknown_bundle_is_named(payload_file, bundle, tmp_path):
    other = make_foreign_bundle(tmp_path / "other", bundle, name="other")
    with pytest.raises(UnknownBundleError, match="other"):
        describe(payload_file, BundleRepository(other.folder))
    others = (make_tiny_bundle(tmp_path / "alike", name=f"alike{n}") for n in range(500))
    mine = bundle.bundle_id[0]
    alike = next(one for one in others if one.bundle_id[0] == mine)
    with pytest.raises(ChecksumError, match=f"another bundle whose id starts {mine}"):
        describe(payload_file, BundleRepository(alike.folder))


def test_a_path_where_nothing_is_is_named(tmp_path):
    with pytest.raises(SourceError, match="nothing-here"):
        describe(tmp_path / "nothing-here")


def test_the_entropy_of_tables_is_what_their_symbols_cost_on_average(bundle):
    tables, random = bundle.tables, np.random.default_rng(3)
    costs = []
    for prior in range(tables.priors):
        rows = tables.first_rows(2, prior)
        drawn = np.stack([_drawn(*tables.row(row), random) for row in rows.tolist()], axis=1)
        symbols = drawn.reshape(-1, *tables.shape).astype(np.int32)
        costs.append(tables.costs(symbols, rows).sum() / COST_UNIT / len(symbols))
    assert expected_bits(tables, 2) == pytest.approx(np.mean(costs), rel=0.01)


def _drawn(cdf, offset, random):
    """4000 symbols as a row expects them; its escape as the first symbol that has no bin."""
    return offset + np.searchsorted(cdf, random.integers(0, TOTAL, 4000), side="right") - 1
