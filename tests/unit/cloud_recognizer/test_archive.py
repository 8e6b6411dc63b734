"""The archive: off, refused, bounded, deleted by age, and what is in it when it is on."""

import asyncio
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from cloud_recognizer.archive import archive as module
from cloud_recognizer.archive.archive import Archive
from cloud_recognizer.archive.files import ArchiveFiles, coded_with, parts
from cloud_recognizer.bundles.catalogue import Catalogue
from cloud_recognizer.config import CloudConfig
from cloud_recognizer.hub.contract import Origin
from cloud_recognizer.metrics import Metrics
from cloud_recognizer.model import ExpressionModel, RuntimeOptions
from cloud_recognizer.policy import Policy
from mien.bitstream import Limits
from mien.bundle import ALL_FILES, Bundle, load_bundle
from mien.errors import ConfigError
from tests.support.archives import START_MS, chunk, write_archive
from tests.support.recognizer import Device, eventually, hello, payload, running_recognizer
from tests.support.small_disk import small_disk

DAY_S = 86_400.0


def rows(folder: Path) -> list[dict[str, Any]]:
    return [row for part in parts(folder) for row in pq.ParquetFile(part).read().to_pylist()]


async def test_recognised_chunks_of_streams_are_kept_as_they_came(
    bundles: Path, bundle: Bundle, tmp_path: Path
) -> None:
    folder = tmp_path / "archive"
    sent = {seq: payload(bundle, seed=seq) for seq in (1, 2, 4)}
    damaged = bytearray(payload(bundle))
    damaged[-1] ^= 1
    async with running_recognizer(bundles, archive=folder, archive_days=1.0) as running:
        device = Device(running.stub)
        await device.open(hello(bundle, "porch", epoch=7))
        for seq in (1, 2):
            await device.send(seq, sent[seq])
        await device.send(2, sent[2])  # a duplicate
        await device.send(3, bytes(damaged))
        await device.send(4, sent[4])
        await device.close()
    kept = rows(folder)
    assert {row["seq"]: row["payload"] for row in kept} == sent
    assert len(kept) == len(sent)
    assert {row["device_id"] for row in kept} == {"porch"}
    assert {(row["epoch"], row["epoch_start_unix_ms"]) for row in kept} == {(7, START_MS)}
    assert {row["bundle_id"] for row in kept} == {bundle.bundle_id}
    assert running.sample("archived_chunks_total") == len(sent)
    assert running.sample("archive_bytes") == sum(part.stat().st_size for part in parts(folder))
    # Without the bundle's own folder, what it takes to decode is there.
    decoded = coded_with(folder, bundle.bundle_id).codec().decode(sent[1])
    assert len(decoded) == 3


async def test_nobody_else_can_read_an_archive(
    bundles: Path, bundle: Bundle, tmp_path: Path
) -> None:
    folder = write_archive(tmp_path / "archive", bundle, [chunk(bundle, 1)])
    (part,) = parts(folder)
    assert stat.S_IMODE(part.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) & 0o077 == 0


async def test_what_is_too_old_is_deleted_when_it_starts_and_while_it_runs(
    bundles: Path, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FORGET_EVERY_S", 0.01)
    now_s = START_MS / 1000
    folder = write_archive(
        tmp_path / "archive",
        bundle,
        [chunk(bundle, 1, at_ms=-90_000_000), chunk(bundle, 2)],  # the older one counts
        [chunk(bundle, 3)],
    )
    async with archive(folder, bundle, clock=lambda: now_s) as (_, metrics):
        await eventually(lambda: [row["seq"] for row in rows(folder)] == [3])
        now_s += DAY_S - 1
        await asyncio.sleep(0.05)
        assert [row["seq"] for row in rows(folder)] == [3]
        now_s += 2
        await eventually(lambda: parts(folder) == [])
        await eventually(lambda: deleted(metrics, "age") == 2)
        assert deleted(metrics, "size") == 0


def test_beyond_its_size_the_oldest_parts_go(bundle: Bundle, tmp_path: Path) -> None:
    folder = write_archive(
        tmp_path / "archive", bundle, *([chunk(bundle, n, at_ms=n)] for n in range(1, 6))
    )
    sizes = [part.stat().st_size for part in parts(folder)]
    files = ArchiveFiles(folder, sum(sizes[2:]))
    assert files.shrink() == 2
    assert [row["seq"] for row in rows(folder)] == [3, 4, 5]
    assert files.shrink() == 0
    assert files.size_bytes == sum(sizes[2:])


async def test_when_the_disk_is_slower_than_the_faces_the_new_ones_are_not_kept_and_counted(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_QUEUED", 4)
    async with archive(tmp_path / "archive", bundle, flush_s=600) as (kept, metrics):
        for seq in range(1, 8):
            kept.offer(origin(bundle), seq, payload(bundle))
    assert [row["seq"] for row in rows(tmp_path / "archive")] == [1, 2, 3, 4]
    assert dropped(metrics, "archive_full") == 3


async def test_a_full_disk_costs_chunks_of_the_archive_and_no_answer(
    bundles: Path, bundle: Bundle, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    with small_disk(disk) as switch:
        async with running_recognizer(
            bundles, archive=disk / "archive", archive_days=1.0
        ) as running:
            switch(True)
            device = Device(running.stub)
            await device.open(hello(bundle))
            await device.send(1, payload(bundle))
            (result,) = (await device.close()).results
            assert result.recognitions
            await eventually(lambda: dropped(running.metrics, "archive_failed") == 1)
            assert parts(disk / "archive") == []
            switch(False)
        assert running.sample("archived_chunks_total") == 0


async def test_a_bundle_whose_folder_goes_can_still_be_decoded(
    bundle: Bundle, tmp_path: Path
) -> None:
    """It is kept with its first chunk, at once, long before a part is due."""
    folder, gone = tmp_path / "archive", tmp_path / "gone"
    shutil.copytree(bundle.folder, gone)
    async with archive(folder, load_bundle(gone, ALL_FILES), flush_s=600) as (kept, _):
        kept.offer(origin(bundle), 1, payload(bundle))
        await eventually(lambda: len(rows(folder)) == 1)
        shutil.rmtree(gone)
        kept.offer(origin(bundle), 2, payload(bundle, seed=2))
    assert [row["seq"] for row in rows(folder)] == [1, 2]
    faces = coded_with(folder, bundle.bundle_id).codec().decode(rows(folder)[1]["payload"])
    assert len(faces) == 3


@pytest.mark.parametrize("days", [{}, {"archive_days": 2.0}])
def test_where_and_for_how_long_go_together(days: dict[str, float]) -> None:
    where = {} if days else {"archive": Path("archive")}
    with pytest.raises(ConfigError, match="archive_days"):
        CloudConfig(Path("bundles"), **days, **where)


def test_a_policy_that_does_not_allow_it_refuses_it(tmp_path: Path) -> None:
    config = CloudConfig(Path("bundles"), archive=tmp_path, archive_days=2.0)
    Policy.lenient().check(config)
    silent = Policy(contexts=["retail"])
    with pytest.raises(ConfigError, match="longest_archive_days is 0"):
        silent.check(config)
    Policy(contexts=["retail"], longest_archive_days=2.0).check(config)
    with pytest.raises(ConfigError, match="longest_archive_days is 1"):
        Policy(contexts=["retail"], longest_archive_days=1.0).check(config)
    silent.check(CloudConfig(Path("bundles")))


async def test_a_recognizer_whose_policy_forbids_it_makes_no_folder(
    bundles: Path, tmp_path: Path
) -> None:
    (tmp_path / "policy.yaml").write_text("contexts: [demonstration]\n")
    with pytest.raises(ConfigError, match="longest_archive_days"):
        async with running_recognizer(
            bundles,
            policy=tmp_path / "policy.yaml",
            archive=tmp_path / "archive",
            archive_days=1.0,
        ):
            pass
    assert not (tmp_path / "archive").exists()


def test_a_recognizer_without_an_archive_loads_no_pyarrow_and_with_one_names_the_extra() -> None:
    script = """
import sys
sys.modules["pyarrow"] = None
from pathlib import Path
from cloud_recognizer import server
from cloud_recognizer.config import CloudConfig
from mien.errors import ConfigError
assert server._archive(CloudConfig(Path("b")), None, None) is None
try:
    server._archive(CloudConfig(Path("b"), archive=Path("a"), archive_days=1.0), None, None)
except ConfigError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "mien[archive]" in done.stdout


@asynccontextmanager
async def archive(
    folder: Path, bundle: Bundle, *, clock: Callable[[], float] = time.time, flush_s: float = 0.01
) -> AsyncIterator[tuple[Archive, Metrics]]:
    """An archive for a day, of a recognizer that serves one bundle."""
    metrics = Metrics()
    models = Catalogue(Limits(), metrics)
    models.add(ExpressionModel(bundle, RuntimeOptions(), Limits()), 0.0)
    kept = Archive(
        *(folder, models, metrics),
        **{"max_age_s": DAY_S, "max_bytes": 1 << 30, "flush_s": flush_s, "clock": clock},
    )
    async with kept.running():
        yield kept, metrics


def origin(bundle: Bundle) -> Origin:
    return Origin("door", 1, START_MS, bundle.bundle_id, bundle.manifest.expressions)


def deleted(metrics: Metrics, rule: str) -> float | None:
    return metrics.registry.get_sample_value(
        "mien_cloud_archive_deleted_parts_total", {"rule": rule}
    )


def dropped(metrics: Metrics, reason: str) -> float | None:
    return metrics.registry.get_sample_value("mien_cloud_dropped_total", {"reason": reason})
