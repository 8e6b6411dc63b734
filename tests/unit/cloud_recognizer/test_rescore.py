"""An archive through another classifier: here, in processes, on a local Ray; stopped, resumed."""

import importlib.util
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from cloud_recognizer.archive.files import parts
from cloud_recognizer.archive.planning import PartJob, plan
from cloud_recognizer.archive.rescoring import PartDone, gather, rescore_part
from cloud_recognizer.model import ExpressionModel, RuntimeOptions
from mien.bitstream import Limits
from mien.bundle import Bundle
from mien.cli.main import main
from mien.errors import BundleError, ConfigError, SourceError
from mien.exit_codes import ExitCode
from mien.folder_lock import FolderLock
from mien.messages.results import ChunkResult
from mien.signing import sign
from tests.support.archives import (
    CHUNKS,
    FACES,
    START_MS,
    chunk,
    read,
    rescored,
    three_parts,
    write_archive,
)
from tests.support.keys import make_signer
from tests.support.recognizer import Device, hello, payload, running_recognizer
from tests.support.tiny_bundle import make_tiny_bundle


@pytest.fixture
def other(tmp_path: Path) -> Bundle:
    """The same latents, another classifier."""
    return make_tiny_bundle(tmp_path / "other", name="other", classifier_seed=9)


@pytest.fixture
def archive(bundle: Bundle, tmp_path: Path) -> Path:
    """Six chunks of three faces, in three parts."""
    return three_parts(tmp_path / "archive", bundle)


def said(result: ChunkResult) -> Iterator[dict[str, Any]]:
    for face in result.recognitions:
        box = face.box
        yield {
            "seq": result.seq,
            "index": face.index,
            "time_unix_ms": START_MS + face.time_ms,
            "track_id": face.track_id,
            **{"x": box.x, "y": box.y, "width": box.width, "height": box.height},
            "expression": face.expression,
        }


async def test_the_same_bundle_gives_the_answers_that_the_stream_gave(
    bundles: Path, bundle: Bundle, older: Bundle, tmp_path: Path
) -> None:
    """Also where the chunks of a stream are of two bundles."""
    folder = tmp_path / "archive"
    async with running_recognizer(bundles, archive=folder, archive_days=1.0) as running:
        device = Device(running.stub)
        await device.open(hello(bundle, "porch"))
        for seq in range(1, 1 + CHUNKS):
            of = bundle if seq % 2 else older
            await device.send(seq, payload(of, FACES, seed=seq, track_id=seq))
        results = (await device.close()).results
    expected = [row for result in results for row in said(result)]
    probabilities = [face.probabilities for result in results for face in result.recognitions]
    found = rescored(folder, bundle, tmp_path / "out.parquet")
    assert len(found) == CHUNKS * FACES
    assert [{name: row[name] for name in expected[0]} for row in found] == expected
    assert {(row["device_id"], row["epoch"]) for row in found} == {("porch", 1)}
    np.testing.assert_allclose([row["probabilities"] for row in found], probabilities, atol=1e-6)
    for row in found:
        assert row["probability"] == max(row["probabilities"])


def test_another_bundle_s_classifier_answers_what_it_would_have(
    archive: Path, bundle: Bundle, other: Bundle, tmp_path: Path
) -> None:
    found = rescored(archive, other, tmp_path / "out.parquet")
    faces = [
        face
        for seq in range(1, 1 + CHUNKS)
        for face in bundle.codec().decode(chunk(bundle, seq).payload)
    ]
    model = ExpressionModel(other, RuntimeOptions(), Limits())
    level = np.array([face.level for face in faces], np.int32)
    expected = model.classify(np.stack([face.symbols for face in faces]), level)
    np.testing.assert_allclose([row["probabilities"] for row in found], expected, atol=1e-6)
    same = rescored(archive, bundle, tmp_path / "same.parquet")
    assert [row["expression"] for row in same] != [row["expression"] for row in found]
    with pq.ParquetFile(tmp_path / "out.parquet") as file:
        order = json.loads(file.schema_arrow.metadata[b"expressions"])
    assert tuple(order) == other.manifest.expressions


def test_the_start_of_an_epoch_that_no_row_can_hold_costs_the_time_alone(
    bundle: Bundle, tmp_path: Path
) -> None:
    """Recognizers once took any start."""
    odd = replace(chunk(bundle, 1), epoch_start_unix_ms=2**63 - 1)
    archive = write_archive(tmp_path / "archive", bundle, [odd, chunk(bundle, 2)])
    found = rescored(archive, bundle, tmp_path / "out.parquet")
    at_ms = [face.time_ms for face in bundle.codec().decode(chunk(bundle, 2).payload)]
    latest = [2**63 - 1 if not at else None for at in at_ms]
    times = [row["time_unix_ms"] for row in found]
    assert times == latest + [START_MS + at for at in at_ms]


def test_two_processes_give_the_same_rows_in_the_same_order(
    archive: Path, other: Bundle, tmp_path: Path
) -> None:
    here = rescored(archive, other, tmp_path / "here.parquet")
    assert len(here) == CHUNKS * FACES
    assert rescored(archive, other, tmp_path / "two.parquet", "--workers", "2") == here


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs mien[ray]")
@pytest.mark.timeout(900)
def test_a_local_ray_gives_the_same_rows_in_the_same_order(
    archive: Path, other: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    here = rescored(archive, other, tmp_path / "here.parquet")
    output = tmp_path / "ray.parquet"
    arguments = [str(archive), "--bundle", str(other.folder), "--output", str(output), "--ray"]
    code = main(["rescore", *arguments])
    if code == ExitCode.SERVER:
        # Ray gives its own processes 30 s to start, however busy the machine is.
        pytest.skip("Ray could not be started here; its own logs say why")
    assert code == ExitCode.OK
    assert read(output) == here


def test_without_a_cluster_that_answers_the_error_says_so_and_what_is_done_stays(
    archive: Path, other: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray", reason="needs mien[ray]")

    def no_cluster(**_: Any) -> None:
        raise ConnectionError("nobody at 10.0.0.1:6379")

    monkeypatch.setattr(ray, "init", no_cluster)
    output = tmp_path / "out.parquet"
    arguments = [str(archive), "--bundle", str(other.folder), "--output", str(output), "--ray"]
    assert main(["rescore", *arguments]) == ExitCode.SERVER
    assert main(["rescore", *arguments[:-1]]) == ExitCode.OK
    assert len(read(output)) == CHUNKS * FACES


def test_a_run_that_was_stopped_goes_on_and_gives_each_face_once(
    archive: Path, other: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = rescored(archive, other, tmp_path / "whole.parquet")
    output = tmp_path / "out.parquet"
    began: list[str] = []

    def stops(job: PartJob) -> PartDone:
        if len(began) == 2:
            raise KeyboardInterrupt
        began.append(job.part)
        return rescore_part(job)

    arguments = [str(archive), "--bundle", str(other.folder), "--output", str(output)]
    with monkeypatch.context() as patched:
        patched.setattr("mien.cli.rescore.rescore_part", stops)
        assert main(["rescore", *arguments]) == ExitCode.INTERRUPTED
    assert not output.exists()
    left = [job.part for job in plan(archive, other.folder, tmp_path / "out.parquet.parts").jobs]
    assert [*began, *left] == [part.name for part in parts(archive)]
    assert len(left) == 1
    assert main(["rescore", *arguments]) == ExitCode.OK
    assert read(output) == whole
    assert not (tmp_path / "out.parquet.parts").exists()


def test_a_chunk_that_came_twice_is_answered_once(
    bundle: Bundle, other: Bundle, tmp_path: Path
) -> None:
    """In one part and in two: a device resumes at another recognizer, or its server was killed."""
    one, two, three = (chunk(bundle, seq) for seq in (1, 2, 3))
    elsewhere = chunk(bundle, 1, device_id="yard")
    archive = write_archive(
        tmp_path / "archive", bundle, [one, two, one], [two, three, elsewhere, three]
    )
    found = rescored(archive, other, tmp_path / "out.parquet")
    keys = [(row["device_id"], row["seq"], row["index"]) for row in found]
    assert len(keys) == len(set(keys)) == 4 * FACES
    assert {key[:2] for key in keys} == {("door", 1), ("door", 2), ("door", 3), ("yard", 1)}


def test_parts_that_come_and_go_while_it_is_stopped_cost_no_face_and_repeat_none(
    bundle: Bundle, other: Bundle, tmp_path: Path
) -> None:
    """The first part is done and deleted by its age; its chunk lies in the second once more."""
    one, two = chunk(bundle, 1), chunk(bundle, 2, at_ms=2)
    again = chunk(bundle, 1, at_ms=1)
    archive = write_archive(tmp_path / "archive", bundle, [one], [again, two])
    first, _ = parts(archive)
    work = tmp_path / "out.parquet.parts"
    done = {job.part: job for job in plan(archive, other.folder, work).jobs}
    rescore_part(done[first.name])
    first.unlink()
    write_archive(archive, bundle, [chunk(bundle, 9, at_ms=9)])
    found = rescored(archive, other, tmp_path / "out.parquet")
    assert sorted((row["seq"], row["index"]) for row in found) == [
        (seq, index) for seq in (1, 2) for index in range(FACES)
    ]


def test_a_part_that_is_deleted_before_its_turn_is_said(
    archive: Path, other: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan(archive, other.folder, tmp_path / "out.parquet.parts")
    parts(archive)[1].unlink()
    found = rescored(archive, other, tmp_path / "out.parquet")
    assert {row["seq"] for row in found} == {1, 2, 5, 6}
    assert "1 parts were deleted before their turn" in capsys.readouterr().out


def test_a_chunk_that_is_damaged_is_left_out_and_said(
    bundle: Bundle, other: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = chunk(bundle, 1), chunk(bundle, 2)
    bad = type(bad)(*(*_fields(bad)[:-1], bad.payload[:-1] + bytes([bad.payload[-1] ^ 1])))
    archive = write_archive(tmp_path / "archive", bundle, [good, bad])
    found = rescored(archive, other, tmp_path / "out.parquet")
    assert {row["seq"] for row in found} == {1}
    assert "1 chunks are damaged" in capsys.readouterr().out


def test_a_file_that_is_no_part_is_an_error_that_names_it(
    archive: Path, other: Bundle, tmp_path: Path
) -> None:
    parts(archive)[0].write_bytes(b"PAR1 it is not")
    with pytest.raises(SourceError, match=parts(archive)[0].name):
        plan(archive, other.folder, tmp_path / "work")


def test_latents_of_another_shape_are_refused_before_anything_is_written(
    archive: Path, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = Path(__file__).parents[3] / "bundles" / "ferplus-48"
    work = tmp_path / "work"
    with pytest.raises(BundleError, match=r"whose latents are \(4, 3, 3\).* takes \(32, 3, 3\)"):
        plan(archive, released, work, any_analysis=True)
    assert not work.exists()


def test_latents_of_another_analysis_are_refused_unless_that_is_asked_for(
    archive: Path, other: Bundle, tmp_path: Path
) -> None:
    foreign = make_tiny_bundle(tmp_path / "foreign", name="foreign", analysis_grey=90)
    with pytest.raises(BundleError, match="--any_analysis"):
        plan(archive, foreign.folder, tmp_path / "work")
    assert plan(archive, foreign.folder, tmp_path / "work", any_analysis=True).jobs


def test_what_another_run_has_begun_is_not_mixed_in(
    archive: Path, bundle: Bundle, other: Bundle, tmp_path: Path
) -> None:
    work = tmp_path / "out.parquet.parts"
    plan(archive, other.folder, work)
    with pytest.raises(ConfigError, match="another archive or bundle"):
        plan(archive, bundle.folder, work)
    with FolderLock(work):
        arguments = [str(archive), "--bundle", str(other.folder)]
        assert main(["rescore", *arguments, "--output", str(tmp_path / "out.parquet")]) == 2


def test_no_archive_is_said(other: Bundle, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no parts"):
        plan(tmp_path, other.folder, tmp_path / "work")


def test_gathering_leaves_nothing_but_the_output(
    archive: Path, other: Bundle, tmp_path: Path
) -> None:
    made = plan(archive, other.folder, tmp_path / "work")
    for job in made.jobs:
        assert rescore_part(job).faces == 2 * FACES
    assert gather(made, tmp_path / "out.parquet") == (CHUNKS * FACES, 0)
    assert not (tmp_path / "work").exists()
    assert not list(tmp_path.glob("*.tmp"))


def _fields(row: Any) -> tuple[Any, ...]:
    return tuple(getattr(row, name) for name in type(row).__slots__)


def test_what_is_written_is_its_own_user_s_alone(
    archive: Path, other: Bundle, tmp_path: Path
) -> None:
    work, output = tmp_path / "out.parquet.parts", tmp_path / "out.parquet"
    before = os.umask(0)
    try:
        first, *_ = plan(archive, other.folder, work).jobs
        rescore_part(first)
        begun = {path: path.stat().st_mode & 0o777 for path in (work, *work.iterdir())}
        # As a version before this one has left it, stopped in the middle.
        (tmp_path / "out.parquet.tmp").write_bytes(b"")
        rescored(archive, other, output)
    finally:
        os.umask(before)
    assert begun == {work: 0o700, work / "plan.json": 0o600, work / first.part: 0o600}
    assert output.stat().st_mode & 0o777 == 0o600


def test_where_signatures_are_demanded_an_unsigned_classifier_is_not_run(
    archive: Path, other: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    signer, output = make_signer(tmp_path / "keys"), tmp_path / "out.parquet"
    command = ["rescore", str(archive), "--bundle", str(other.folder), "--output", str(output)]
    command += ["--bundle_keys", str(signer.folder)]
    assert main(command) == ExitCode.BUNDLE
    assert "is not signed" in capsys.readouterr().err
    assert not output.exists()
    sign(other.folder, other.bundle_id, signer.private)
    assert main(command) == ExitCode.OK
    assert len(read(output)) == CHUNKS * FACES


def test_a_bundle_that_was_changed_since_it_was_checked_is_not_run(
    archive: Path, bundle: Bundle, other: Bundle, tmp_path: Path
) -> None:
    job, *_ = plan(archive, other.folder, tmp_path / "work").jobs
    shutil.rmtree(other.folder)
    shutil.copytree(bundle.folder, other.folder)
    with pytest.raises(BundleError, match=other.bundle_id[:12]):
        rescore_part(job)
