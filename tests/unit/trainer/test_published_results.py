"""What is published says what was measured."""

import json
from pathlib import Path

import pytest

from trainer.compare.make import report_of
from trainer.compare.readme_table import link_to_report, readme_table, with_table
from trainer.compare.results import read_results

ROOT = Path(__file__).parents[3]
RESULTS = ROOT / "docs" / "results"
PAGE = ROOT / "docs" / "researcher.md"

pytestmark = pytest.mark.skipif(
    not (RESULTS / "results.json").exists(), reason="no results are published yet"
)


def test_the_researchers_table_is_that_of_the_results() -> None:
    text = PAGE.read_text()
    block = readme_table(read_results(RESULTS), link_to_report(PAGE, RESULTS))
    assert with_table(text, block) == text


def test_the_report_is_that_of_the_results() -> None:
    assert (RESULTS / "README.md").read_text() == report_of(RESULTS)


def test_the_readmes_figures_of_the_bundle_are_those_of_its_manifest() -> None:
    text = (ROOT / "README.md").read_text()
    figures = json.loads((ROOT / "bundles/ferplus-48/manifest.json").read_text())["figures"]
    levels, default = figures["levels"], figures["default_level"]
    best = max(levels, key=lambda level: level["accuracy"])
    shown = [
        f"{100 * level['accuracy']:.2f}% at {level['payload_bytes_per_face']:.1f} bytes"
        for level in (levels[0], levels[default], best)
    ]
    layers = (
        f"{figures['bytes_per_face_with_layers']:.1f}; {figures['psnr_db']:.2f} dB; "
        f"{100 * figures['pixel_accuracy_of_reconstructions']:.2f}%"
    )
    assert f"| {'; '.join(shown)} |" in text
    assert f"| {figures['macro_f1']:.3f} |" in text
    assert f"| {100 * figures['pixel_accuracy']:.2f}% |" in text
    assert f"| {layers} |" in text


def test_the_readmes_figures_of_another_task_are_those_of_the_manifest() -> None:
    figures = json.loads((ROOT / "bundles/ferplus-48/manifest.json").read_text())["figures"]
    views = (f"level_{figures['default_level']}", "pixels", "pixel_features")
    shown = [f"{100 * figures['beyond'][view]['fer2013_accuracy']:.1f}%" for view in views]
    assert f"| {'; '.join(shown)} |" in (ROOT / "README.md").read_text()
