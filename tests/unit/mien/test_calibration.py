"""Confidence at a temperature, in bins, and what a manifest may say of it."""

import json
from math import nan
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mien.bundle import load_bundle
from mien.calibration import Calibration, confidence, confidence_bin
from mien.errors import ManifestError
from tests.support.tiny_bundle import make_tiny_bundle

SAID = Calibration(1.5, (3, 0, 2, 0, 0, 0, 0, 0), (0, 0, 1, 0, 0, 0, 0, 0, 0, 4))


def test_a_temperature_takes_its_root_of_the_odds() -> None:
    # √9 : √1 = 3 : 1, and 9² : 1² = 81 : 1.
    assert confidence((0.9, 0.1), 1) == 0.9
    assert confidence((0.1, 0.9), 2) == pytest.approx(0.75)
    assert confidence((0.9, 0.1), 0.5) == pytest.approx(81 / 82)


def test_what_is_no_number_gives_no_confidence() -> None:
    for row in ((nan, 0.5), (0.5, nan), (0.0, 0.0)):
        assert confidence(row, 2) == 0
    assert confidence((nan, 0.5), 1) == 0


@given(
    st.lists(st.floats(0, 1, width=32), min_size=2, max_size=64),
    st.floats(0.05, 20) | st.just(1),
)
def test_every_confidence_has_a_bin(row: list[float], temperature: float) -> None:
    value = confidence(row, temperature)
    assert 0 <= value <= 1
    assert 0 <= confidence_bin(value) <= 9


def test_bins_are_tenths_and_one_is_in_the_last() -> None:
    assert [confidence_bin(x) for x in (0.0, 0.05, 0.1, 0.55, 0.99, 1.0)] == [0, 0, 1, 5, 9, 9]


def test_a_bundle_says_its_calibration_and_an_older_one_none(tmp_path: Path) -> None:
    with_one = make_tiny_bundle(tmp_path / "with", calibration=SAID)
    without = make_tiny_bundle(tmp_path / "without")
    assert with_one.manifest.calibration == SAID
    assert without.manifest.calibration is None
    assert b"calibration" not in without.read("manifest.json")
    assert with_one.manifest.codec_id == without.manifest.codec_id


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": 0.04},
        {"temperature": 20.1},
        {"temperature": 1},
        {"temperature": "1.0"},
        {"expressions": [5]},
        {"expressions": [5, 0, 0, 0, 0, 0, 0, -1]},
        {"expressions": [5, 0, 0, 0, 0, 0, 0, True]},
        {"expressions": [4, 0, 0, 0, 0, 0, 0, 0]},  # 4 faces here, 5 there
        {"confidences": [5] + [0] * 8},
        {"confidences": [0.5] * 10},
        {"faces": 5},
    ],
)
def test_a_calibration_of_another_form_is_refused(tmp_path: Path, wrong: dict[str, object]) -> None:
    folder = make_tiny_bundle(tmp_path / "tiny", calibration=SAID).folder
    document = json.loads((folder / "manifest.json").read_text())
    document["calibration"].update(wrong)
    (folder / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(ManifestError, match="calibration"):
        load_bundle(folder)
