"""`mien-edge spool`: what waits, in words and as JSON, and how to be rid of it."""

import json
from pathlib import Path

import pytest

from edge_encoder.cli import main
from edge_encoder.spool.database import DAMAGED, FILE, FOREIGN
from mien.exit_codes import ExitCode
from tests.support.spooling import BUNDLE_ID, ROW, Clock, epoch, numbered, spool_in


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two epochs: three chunks of two faces, one of them settled, and a chunk of one."""
    with spool_in(tmp_path / "spool") as spool:
        for seq in (1, 2, 3):
            spool.add(epoch(1), seq, numbered(seq, faces=2))
        spool.settle(epoch(1), 2, 2)
        spool.add(epoch(2), 1, numbered(9))
    return tmp_path / "spool"


def shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    assert main(["spool", "--spool", str(folder), "--json"]) == ExitCode.OK
    document = json.loads(capsys.readouterr().out)
    assert isinstance(document, dict)
    return document


def test_it_is_shown_by_epoch_with_the_books(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = shown(folder, capsys)
    first, second = found.pop("epochs")  # type: ignore[misc]
    assert found["chunks"] == 3
    assert found["faces"] == 5
    assert found["bytes"] == first["bytes"] + second["bytes"]
    assert found["oldest_age_s"] == max(first["oldest_age_s"], second["oldest_age_s"])
    assert found["encrypted"] is False
    assert found["books"] == {
        "accepted": {"chunks": 4, "faces": 7},
        "settled": {"chunks": 1, "faces": 2},
    }
    assert (first["epoch"], first["chunks"], first["faces"]) == (1, 2, 4)
    assert second["oldest_age_s"] > 0
    del second["oldest_age_s"]
    assert second == {
        "device_id": "door",
        "epoch": 2,
        "epoch_start_unix_ms": epoch(2).epoch_start_unix_ms,
        "bundle_id": BUNDLE_ID,
        "chunks": 1,
        "faces": 1,
        "bytes": ROW,
    }


def test_it_can_be_looked_at_while_it_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with spool_in(tmp_path) as spool:
        for seq in (1, 2):
            spool.add(epoch(1), seq, numbered(seq))
            assert shown(tmp_path, capsys)["chunks"] == seq


def test_in_words(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["spool", "--spool", str(folder)]) == ExitCode.OK
    said = capsys.readouterr().out
    assert "3 chunks, 5 faces" in said
    assert "epoch 2 of door, bundle abababababab: 1 chunks" in said
    assert "accepted: 7 faces" in said


def test_the_environment_names_the_folder_as_it_does_for_run(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIEN_EDGE_SPOOL", str(folder))
    assert main(["spool"]) == ExitCode.OK
    assert "3 chunks" in capsys.readouterr().out


def test_purge_leaves_nothing_of_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / DAMAGED).write_bytes(b"faces")
    (folder / FOREIGN).write_bytes(b"somebody's recipes")
    assert main(["spool", "--spool", str(folder), "--purge"]) == ExitCode.OK
    left = {path.name for path in folder.iterdir() if path.name.startswith(FILE)}
    assert left == {FOREIGN}
    capsys.readouterr()
    assert shown(folder, capsys)["chunks"] == 0


def test_purge_waits_for_the_one_that_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with spool_in(tmp_path) as spool:
        spool.add(epoch(1), 1, numbered(1))
        assert main(["spool", "--spool", str(tmp_path), "--purge"]) == ExitCode.USAGE
        assert "another mien-edge" in capsys.readouterr().err
        assert shown(tmp_path, capsys)["chunks"] == 1


def test_a_folder_that_is_none_and_a_file_that_is_damaged_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["spool", "--spool", str(tmp_path / "typo")]) == ExitCode.USAGE
    assert "is no folder" in capsys.readouterr().err
    (tmp_path / FILE).write_text("no database" * 100)
    assert main(["spool", "--spool", str(tmp_path)]) == ExitCode.FAILURE
    assert FILE in capsys.readouterr().err
    assert (tmp_path / FILE).is_file()  # to look is not to touch


def test_an_age_is_what_has_passed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with spool_in(tmp_path, clock=clock, max_age_s=1e12) as spool:
        spool.add(epoch(1), 1, numbered(1))
    assert shown(tmp_path, capsys)["oldest_age_s"] > 9 * 10**7  # type: ignore[operator]
    assert main(["spool", "--spool", str(tmp_path)]) == ExitCode.OK
    assert " d" in capsys.readouterr().out
