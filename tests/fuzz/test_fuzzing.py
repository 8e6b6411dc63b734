"""The corpus, replayed; a short run of every fuzzer; and that a fuzzer finds what is there."""

import importlib
import importlib.util
from pathlib import Path

import pytest

from tests.fuzz.fuzzer import CORPUS, TARGETS, fuzz

# Of each target, two minutes together; `make fuzz` takes longer.
SECONDS = 25
needs_atheris = pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this machine"
)


@pytest.mark.parametrize("target", TARGETS)
def test_every_input_of_the_corpus_keeps_the_promise_of_its_harness(target: str) -> None:
    harness = importlib.import_module(f"tests.fuzz.{target}")
    inputs = sorted((CORPUS / target).iterdir())
    answers = {path.name: harness.one_input(path.read_bytes()) for path in inputs}
    assert set(answers.values()) == {True, False}, "the corpus has good inputs and bad ones"


@pytest.mark.parametrize("target", TARGETS)
def test_a_fuzzer_begins_with_what_is_accepted(target: str) -> None:
    harness = importlib.import_module(f"tests.fuzz.{target}")
    refused = [seed for seed in harness.seeds() if not harness.one_input(seed)]
    assert refused == []


@needs_atheris
@pytest.mark.parametrize("target", TARGETS)
def test_a_short_run_of_the_fuzzer_finds_nothing(target: str, tmp_path: Path) -> None:
    corpora = (tmp_path / "found", CORPUS / target)
    good, said = fuzz(f"tests.fuzz.{target}", SECONDS, corpora, tmp_path / "crash")
    found = {path.name: path.read_bytes() for path in tmp_path.glob("crash-*")}
    assert good, f"{found}\n{said[-5000:]}"
    assert "stat::number_of_executed_units" in said


@needs_atheris
def test_a_fuzzer_finds_a_defect_that_is_there(tmp_path: Path) -> None:
    planted = "tests.support.planted_defect"
    good, said = fuzz(planted, 120, (tmp_path / "found",), tmp_path / "crash")
    assert not good
    assert "ZeroDivisionError: planted" in said
    assert [path.read_bytes()[:3] for path in tmp_path.glob("crash-*")] == [b"mi!"]
