"""What is published says what was measured."""

from pathlib import Path

import pytest

from trainer.compare.make import report_of
from trainer.compare.readme_table import readme_table, with_table
from trainer.compare.results import read_results

ROOT = Path(__file__).parents[3]
RESULTS = ROOT / "docs" / "results"

pytestmark = pytest.mark.skipif(
    not (RESULTS / "results.json").exists(), reason="no results are published yet"
)


def test_the_readmes_table_is_that_of_the_results() -> None:
    text = (ROOT / "README.md").read_text()
    assert with_table(text, readme_table(read_results(RESULTS))) == text


def test_the_report_is_that_of_the_results() -> None:
    assert (RESULTS / "README.md").read_text() == report_of(RESULTS)
