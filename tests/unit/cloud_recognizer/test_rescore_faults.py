"""An archive that not every worker sees, and one with chunks of a bundle of another format."""

import hashlib
import importlib.util
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cloud_recognizer.archive.planning import PLAN, PartJob, plan
from cloud_recognizer.archive.rescoring import PartDone, rescore_part
from mien.bundle import Bundle
from mien.cli.main import main
from mien.errors import BundleError
from mien.exit_codes import ExitCode
from mien.manifest import FORMAT
from tests.support.archives import (
    CHUNKS,
    FACES,
    chunk,
    command,
    rescored,
    three_parts,
    write_archive,
)

Rescore = Callable[[PartJob], PartDone]


@pytest.fixture
def archive(bundle: Bundle, tmp_path: Path) -> Path:
    """Three parts."""
    return three_parts(tmp_path / "archive", bundle)


def elsewhere(archive: Path) -> Rescore:
    """A worker to which this is the archive, whatever its job says."""
    return lambda job: rescore_part(replace(job, archive=str(archive)))


def somewhere_else(work: Path) -> Rescore:
    """A worker that writes what it did into a folder of its own."""
    return lambda job: rescore_part(replace(job, output=str(work)))


@pytest.mark.parametrize(
    ("mounted", "said"),
    [(False, "does not see the archive"), (True, "3 parts are in the archive")],
)
def test_a_worker_that_does_not_see_the_archive_loses_no_face_and_the_same_command_goes_on(
    archive: Path,
    bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    mounted: bool,
    said: str,
) -> None:
    """Nothing is there under its path, or a folder on which nothing is mounted."""
    nothing, output = tmp_path / "nothing", tmp_path / "out.parquet"
    if mounted:
        nothing.mkdir()
    with monkeypatch.context() as patched:
        patched.setattr("mien.cli.rescore.rescore_part", elsewhere(nothing))
        assert main(command(archive, bundle, output)) == ExitCode.SOURCE
    assert said in capsys.readouterr().err
    assert not output.exists()
    assert (tmp_path / "out.parquet.parts" / PLAN).exists()
    assert len(rescored(archive, bundle, output)) == CHUNKS * FACES


def test_what_a_worker_writes_where_nobody_sees_it_is_missed_and_made_again(
    archive: Path, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, output = tmp_path / "own", tmp_path / "out.parquet"
    own.mkdir()
    with monkeypatch.context() as patched:
        patched.setattr("mien.cli.rescore.rescore_part", somewhere_else(own))
        assert main(command(archive, bundle, output)) == ExitCode.SOURCE
    assert len(rescored(archive, bundle, output)) == CHUNKS * FACES


def test_parts_that_are_gone_are_not_believed_to_be_where_the_archive_is_not_seen(
    archive: Path, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver's own volume is away by the time that its workers are done."""

    def gone(job: PartJob) -> PartDone:
        if archive.exists():
            archive.rename(archive.with_name("away"))
        return PartDone(job.part, gone=True)

    output = tmp_path / "out.parquet"
    with monkeypatch.context() as patched:
        patched.setattr("mien.cli.rescore.rescore_part", gone)
        assert main(command(archive, bundle, output)) == ExitCode.SOURCE
    archive.with_name("away").rename(archive)
    assert len(rescored(archive, bundle, output)) == CHUNKS * FACES


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs mien[ray]")
@pytest.mark.timeout(900)
def test_what_a_worker_of_ray_does_not_see_is_said_in_one_line_and_without_a_traceback(
    archive: Path,
    bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("mien.cli.rescore.rescore_part", elsewhere(tmp_path / "nothing"))
    code = main(command(archive, bundle, tmp_path / "out.parquet", "--ray"))
    if code == ExitCode.SERVER:
        # Ray gives its own processes 30 s to start, however busy the machine is.
        pytest.skip("Ray could not be started here; its own logs say why")
    assert code == ExitCode.SOURCE
    (line,) = (x for x in capsys.readouterr().err.splitlines() if "does not see" in x)
    assert line.startswith("mien rescore: the worker on ")


def of_format(number: int, bundle: Bundle, folder: Path) -> Bundle:
    """The same bundle, as a release has made it that wrote this format."""
    shutil.copytree(bundle.folder, folder)
    document = json.loads((folder / "manifest.json").read_bytes())
    data = json.dumps({**document, "format": number}).encode()
    (folder / "manifest.json").write_bytes(data)
    found = hashlib.sha256(data).hexdigest()
    return replace(bundle, folder=folder, bundle_id=found, manifest_bytes=len(data))


@pytest.mark.parametrize("number", [FORMAT - 1, FORMAT + 1])
def test_a_bundle_whose_base_is_not_read_here_is_named_before_anything_is_written(
    archive: Path, bundle: Bundle, tmp_path: Path, number: int
) -> None:
    foreign = of_format(number, bundle, tmp_path / "foreign")
    write_archive(archive, foreign, [chunk(foreign, 9, at_ms=9)])
    with pytest.raises(
        BundleError, match=rf"{foreign.bundle_id[:12]} .*format is {number}, {FORMAT} is"
    ):
        plan(archive, bundle.folder, tmp_path / "work")
    assert not (tmp_path / "work").exists()
