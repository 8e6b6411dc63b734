"""From points to results, plots, report and the README's table."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.trainer.measured import COSTS, a_point, measured_folder
from trainer.compare.make import make_results, render, report_of
from trainer.compare.points import read_points, write_point
from trainer.compare.readme_table import (
    BEGIN,
    END,
    fill_readme,
    link_to_report,
    readme_table,
    with_table,
)
from trainer.compare.results import measure, read_results
from trainer.compare.sheet import Cell, draw_sheet
from trainer.schematic import schematic_faces

FACES, RESAMPLES = 400, 200


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = measured_folder(tmp_path_factory.mktemp("measured"), FACES)
    return measured_folder(made / "kept-back", FACES // 2).parent


@pytest.fixture(scope="module")
def out(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("results")
    make_results(folder, made, RESAMPLES)
    return made


@pytest.fixture(scope="module")
def results(out: Path) -> dict[str, Any]:
    return read_results(out)


def test_every_method_is_in_the_results_with_all_of_its_rates(results: dict[str, Any]) -> None:
    assert set(COSTS) < set(results["methods"])
    for name in COSTS:
        assert [row["rate"] for row in results["methods"][name]["rates"]] == list(range(8))
    assert results["faces"] == FACES
    assert results["split"] == "a made-up split"
    assert results["kept_back"]["faces"] == FACES // 2


def test_aggregates_are_those_of_the_points(folder: Path, results: dict[str, Any]) -> None:
    first = [p for p in read_points(folder) if (p.method, p.rate) == ("jpeg", 2)]
    row = results["methods"]["jpeg"]["rates"][2]
    assert row["bytes"] == pytest.approx(np.mean([p.sizes.mean() for p in first]), rel=1e-5)
    assert row["psnr_db"] == pytest.approx(np.mean([p.psnr_db.mean() for p in first]), rel=1e-5)
    low, high = row["accuracy_of_seeds"]
    assert low <= row["accuracy"] <= high
    assert row["accuracy_interval"][0] < row["accuracy"] < row["accuracy_interval"][1]


def test_results_hold_no_list_as_long_as_the_faces(out: Path) -> None:
    def longest(value: Any) -> int:
        if isinstance(value, dict):
            return max((longest(part) for part in value.values()), default=0)
        if isinstance(value, list):
            return max([len(value), *(longest(part) for part in value)])
        return 0

    assert longest(json.loads((out / "results.json").read_text())) < FACES // 2


@pytest.mark.parametrize("name", ["finetuned", "joint", "adapted", "original-on-joint"])
def test_the_interval_covers_the_cost_that_the_points_were_made_with(
    results: dict[str, Any], name: str
) -> None:
    deltas = results["against_anchor"][name]
    low, high = deltas["bd_rate_percent"]["interval"]
    assert low <= 100 * (COSTS[name] - 1) <= high
    assert set(deltas["bd_rate_percent"]["seeds"]) == {"0", "1"}
    assert deltas["bd_accuracy_points"]["value"] > 0


def test_what_needs_more_bytes_has_a_positive_bd_rate(results: dict[str, Any]) -> None:
    for name in ("jpeg", "webp", "avif", "jxl"):
        assert results["against_anchor"][name]["bd_rate_percent"]["interval"][0] > 0


def test_the_anchor_is_not_compared_with_itself(results: dict[str, Any]) -> None:
    assert "pretrained" not in results["against_anchor"]


def test_a_method_of_one_rate_has_no_delta_and_says_why(results: dict[str, Any]) -> None:
    delta = results["against_anchor"]["edge-only"]["bd_rate_percent"]
    assert delta["value"] is None
    assert "one rate" in delta["reason"]


def test_a_target_is_met_on_the_right_side_only(results: dict[str, Any]) -> None:
    rows = {row["what"]: row for row in results["targets"]}
    missed = rows["joint: bd_rate_percent"]
    assert missed["value"] > missed["target"]
    assert missed["met"] is False
    assert rows["finetuned: bd_accuracy_points"]["met"] is True
    assert rows["training: hours"]["met"] is True


def test_hours_are_those_of_every_stage_once_at_its_slowest_seed(results: dict[str, Any]) -> None:
    assert results["training_hours"] == pytest.approx(3.5)


def test_points_of_other_faces_are_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "points", tmp_path / "points")
    write_point(tmp_path, a_point("joint", 0, 0, 50, 0.8, FACES + 1))
    with pytest.raises(ValueError, match="not of the same split"):
        measure(tmp_path, tmp_path, RESAMPLES)


def test_a_rate_that_a_seed_lacks_is_left_out_of_all(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "points", tmp_path / "points")
    (tmp_path / "points" / "joint.1.3.npz").unlink()
    rates = measure(tmp_path, tmp_path, RESAMPLES)["methods"]["joint"]["rates"]
    assert [row["rate"] for row in rates] == [0, 1, 2, 4, 5, 6, 7]


def test_without_an_anchor_there_are_curves_but_no_deltas(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "points").mkdir()
    for path in (folder / "points").glob("[jt]*.npz"):
        shutil.copy(path, tmp_path / "points")
    found = measure(tmp_path, tmp_path, RESAMPLES)
    assert found["against_anchor"] == {}
    assert all(row["met"] is None for row in found["targets"])
    assert render(tmp_path)


def test_a_method_that_nobody_foresaw_goes_under_its_own_name(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "points", tmp_path / "points")
    for point in read_points(folder):
        if point.method == "finetuned":
            write_point(tmp_path, replace(point, method="finetuned-neutral"))
    make_results(tmp_path, tmp_path, RESAMPLES)
    assert "| finetuned-neutral |" in (tmp_path / "README.md").read_text()


def test_everything_is_drawn_again_from_results_json_alone(out: Path, tmp_path: Path) -> None:
    shutil.copy(out / "results.json", tmp_path)
    assert {path.name for path in render(tmp_path)} == {
        *("README.md", "rate-accuracy.svg", "rate-psnr.svg", "rate-ms-ssim.svg"),
        *("calibration.svg", "confusion.svg", "per-class.svg", "loss-weights.svg"),
    }
    for path in tmp_path.iterdir():
        assert _digest(path) == _digest(out / path.name), path.name


def test_measuring_again_gives_the_same_results(folder: Path, out: Path, tmp_path: Path) -> None:
    measure(folder, tmp_path, RESAMPLES)
    assert _digest(tmp_path / "results.json") == _digest(out / "results.json")


def test_every_picture_that_the_report_shows_is_there(out: Path) -> None:
    shown = [part.split(")")[0] for part in (out / "README.md").read_text().split("](")[1:]]
    assert len(shown) >= 7
    for name in shown:
        assert (out / name).exists(), name


def test_the_report_says_what_was_missed(out: Path) -> None:
    text = (out / "README.md").read_text()
    assert "**Missed**: codec and classifier jointly, BD-rate" in text


def test_what_a_person_has_to_say_stands_in_the_report(out: Path, tmp_path: Path) -> None:
    shutil.copy(out / "results.json", tmp_path)
    (tmp_path / "notes.md").write_text("The codec was trained for an hour only.\n")
    assert "## What to make of it\n\nThe codec was trained for an hour" in report_of(tmp_path)


def test_the_readmes_table_goes_between_its_marks_and_nowhere_else(
    out: Path, tmp_path: Path
) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    fill_readme(readme, out)
    text = readme.read_text()
    assert text.startswith(f"before\n{BEGIN}\n")
    assert text.endswith(f"\n{END}\nafter\n")
    assert readme_table(read_results(out), link_to_report(readme, out)) in text
    assert "old" not in text
    fill_readme(readme, out)
    assert readme.read_text() == text


@pytest.mark.parametrize("text", ["", BEGIN, f"{END} {BEGIN}", f"{BEGIN} {BEGIN} {END}"])
def test_a_readme_without_the_marks_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected one"):
        with_table(text, "table")


def test_a_sheet_of_drawn_faces_is_the_same_every_time(tmp_path: Path) -> None:
    faces = schematic_faces(3)
    rows = {
        "uncompressed": [Cell(face) for face in faces],
        "joint": [Cell(face // 2, 31, "24.1 dB") for face in faces],
    }
    draw_sheet(tmp_path / "a.png", rows)
    draw_sheet(tmp_path / "b.png", rows)
    assert _digest(tmp_path / "a.png") == _digest(tmp_path / "b.png")
    draw_sheet(tmp_path / "c.png", {**rows, "joint": [Cell(face, 31) for face in faces]})
    assert _digest(tmp_path / "a.png") != _digest(tmp_path / "c.png")


def test_a_sheet_with_rows_of_different_lengths_is_refused(tmp_path: Path) -> None:
    cell = Cell(schematic_faces(1)[0])
    with pytest.raises(ValueError, match="as many faces"):
        draw_sheet(tmp_path / "a.png", {"jpeg": [cell], "joint": [cell, cell]})


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
