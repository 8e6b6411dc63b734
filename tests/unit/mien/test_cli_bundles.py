"""`mien bundles`: the operator's way to say which bundle does what."""

import json
from pathlib import Path

import pytest

from mien.bundle import Bundle
from mien.cli.main import main
from mien.exit_codes import ExitCode
from mien.rollout import FILE, read_rollout
from tests.support.tiny_bundle import make_tiny_bundle


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "bundles"
    make_tiny_bundle(folder / "first", name="first", created="2026-01-01")
    make_tiny_bundle(folder / "second", name="second", created="2026-01-02")
    return folder


@pytest.fixture
def first(repository: Path) -> Bundle:
    return make_tiny_bundle(repository / "first", name="first", created="2026-01-01")


@pytest.fixture
def second(repository: Path) -> Bundle:
    return make_tiny_bundle(repository / "second", name="second", created="2026-01-02")


def bundles(repository: Path, *arguments: str) -> int:
    return main(["bundles", "--repository", str(repository), *arguments])


def test_a_bundle_is_promoted_by_its_folder_or_first_digits_and_rolled_back(
    repository: Path, first: Bundle, second: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bundles(repository, "promote", "first") == ExitCode.OK
    # The latest, with which a recognizer had started, is what there is to return to.
    assert read_rollout(repository).previous == (second.bundle_id,)
    assert bundles(repository, "promote", second.bundle_id[:8]) == ExitCode.OK
    assert read_rollout(repository).promoted == second.bundle_id
    assert bundles(repository, "rollback") == ExitCode.OK
    assert read_rollout(repository).promoted == first.bundle_id
    assert f"promoted: {first.bundle_id[:12]} (first)" in capsys.readouterr().out
    assert json.loads((repository / FILE).read_text())["promoted"] == first.bundle_id


def test_canary_and_shadow_are_set_listed_and_ended(
    repository: Path, first: Bundle, second: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bundles(repository, "promote", "first") == ExitCode.OK
    assert bundles(repository, "canary", "second", "--share", "0.1") == ExitCode.OK
    assert bundles(repository, "shadow", "second") == ExitCode.OK
    capsys.readouterr()
    assert bundles(repository, "list") == ExitCode.OK
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("canary 10.0%, shadow, previous 1  ")
    assert lines[1].startswith("promoted ")
    assert first.bundle_id[:12] in lines[1]
    assert bundles(repository, "canary", "none") == ExitCode.OK
    assert bundles(repository, "shadow", "none") == ExitCode.OK
    state = read_rollout(repository)
    assert (state.canary, state.shadow) == (None, None)


def test_a_canary_beside_an_undecided_repository_writes_down_what_is_promoted(
    repository: Path, first: Bundle, second: Bundle
) -> None:
    assert bundles(repository, "canary", "first", "--share", "0.5") == ExitCode.OK
    assert read_rollout(repository).promoted == second.bundle_id


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["promote", "third"], ExitCode.BUNDLE, "'third' names no bundles"),
        (["promote", "a"], ExitCode.BUNDLE, "names no bundles"),
        (["promote", "damaged"], ExitCode.BUNDLE, "classifier.onnx"),
        (["canary", "first"], ExitCode.USAGE, "--share"),
        (["canary", "first", "--share", "1.5"], ExitCode.USAGE, "--share"),
        (["canary", "second", "--share", "0.1"], ExitCode.BUNDLE, "is promoted"),
        (["shadow", "second"], ExitCode.BUNDLE, "compared with"),
        (["shadow", "codec"], ExitCode.BUNDLE, "another codec"),
        (["rollback"], ExitCode.BUNDLE, "none to return to"),
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_is_written(
    repository: Path,
    arguments: list[str],
    code: ExitCode,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    damaged = make_tiny_bundle(repository / "damaged", created="2026-01-01")
    damaged.path("classifier.onnx").write_bytes(b"other bytes")
    make_tiny_bundle(repository / "codec", created="2026-01-01", table_width=3.0)
    assert bundles(repository, "promote", "second") == ExitCode.OK
    before = (repository / FILE).read_bytes()
    assert bundles(repository, *arguments) == code
    assert message in capsys.readouterr().err
    assert (repository / FILE).read_bytes() == before


def test_folders_that_are_no_bundle_are_listed_with_the_reason(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (repository / "first" / "probe.npz").unlink()
    assert bundles(repository, "list") == ExitCode.OK
    out = capsys.readouterr().out
    assert "bundle_incomplete" in out
    assert "promoted (the latest)" in out
    assert bundles(repository / "second", "list") == ExitCode.BUNDLE
    assert "is a bundle itself" in capsys.readouterr().err
