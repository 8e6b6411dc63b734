"""Disks that are full and files that are damaged or foreign: said, survived, recovered from."""

import resource
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge_encoder.backlog import Backlog
from edge_encoder.epochs import Epochs
from edge_encoder.metrics import SPOOL_DAMAGED, UNCONFIRMED, UPLINK_FULL, Metrics
from edge_encoder.spool.database import DAMAGED, FILE, FOREIGN, open_database
from edge_encoder.spool.shelf import Shelf
from tests.support.small_disk import small_disk
from tests.support.spooling import epoch, kept, numbered, spool_in

E1, E2 = epoch(1), epoch(2)
ROOM_BYTES = 1 << 20


@contextmanager
def small_files(folder: Path) -> Iterator[Callable[[bool], None]]:
    """A switch: no file of this process may grow beyond a megabyte, by RLIMIT_FSIZE."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def switch(full: bool) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM_BYTES if full else soft, hard))

    try:
        yield switch
    finally:
        switch(False)


Disk = Callable[[Path], "contextmanager[Callable[[bool], None]]"]


@pytest.fixture(params=[small_files, small_disk])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[bool], None]]:
    with request.param(tmp_path) as switch:
        yield switch


def filled(backlog: Backlog, metrics: Metrics, first: int) -> int:
    """Offer chunks until the disk takes none; returns the first number that it did not take."""
    for number in range(first, first + 100_000):
        backlog.offer(numbered(number, faces=64))
        if metrics.registry.get_sample_value("mien_edge_spool_failing"):
            return number
    pytest.fail("the disk is never full")


def test_a_full_disk_is_said_lived_with_and_recovered_from(
    disk: Callable[[bool], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = Metrics()
    with spool_in(tmp_path, metrics) as spool:
        backlog = Backlog(20, 8, Shelf(spool, E1))
        backlog.offer(numbered(1, faces=64))
        disk(True)
        first = filled(backlog, metrics, 2)
        for number in range(first + 1, first + 4):
            backlog.offer(numbered(number, faces=64))
        assert [record.levelname for record in caplog.records] == ["ERROR"]  # once, not each time
        assert "takes no chunks" in caplog.text
        unstored = metrics.registry.get_sample_value("mien_edge_spool_unstored_faces_total")
        assert unstored == 4 * 64
        on_disk = spool.total.chunks
        assert on_disk == first - 1
        disk(False)
        backlog.offer(numbered(first + 4, faces=64))
        assert "takes chunks again" in caplog.text
        assert metrics.registry.get_sample_value("mien_edge_spool_failing") == 0
        # What waited in memory alone is on disk now, too, under the name that it had.
        assert kept(spool, E1) == list(range(1, first + 5))
    with spool_in(tmp_path) as spool:
        assert kept(spool, E1) == list(range(1, first + 5))


def test_what_is_settled_while_the_disk_is_full_is_deleted_later(
    disk: Callable[[bool], None], tmp_path: Path
) -> None:
    metrics = Metrics()
    with spool_in(tmp_path, metrics) as spool:
        backlog = Backlog(20, 8, Shelf(spool, E1))
        disk(True)
        first = filled(backlog, metrics, 1)
        spool.settle(E1, 0, first - 1)
        disk(False)
        spool.apply_rules()
        assert spool.add(E2, 1, numbered(1))
        assert kept(spool, E1) == []
        assert spool.total.chunks == 1


def test_at_the_end_what_a_full_disk_did_not_take_is_lost_or_if_it_was_sent_unconfirmed(
    disk: Callable[[bool], None], tmp_path: Path
) -> None:
    metrics = Metrics()
    with spool_in(tmp_path, metrics) as spool:
        disk(True)
        filled(Backlog(20, 8, Shelf(spool, E2)), metrics, 1)
        epochs = Epochs(E1, 20, metrics, spool)
        for number in range(1, 6):
            epochs.offer(numbered(number, faces=64))
        for number in (1, 2):
            assert epochs.backlog.next_to_send() == (number, numbered(number, faces=64))
        epochs.abandon()
        assert metrics.drops == {UNCONFIRMED: 2 * 64, UPLINK_FULL: 3 * 64}


def test_a_run_starts_on_a_full_disk_and_keeps_chunks_once_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path) as disk:
        disk(True)
        with spool_in(tmp_path) as spool:
            assert spool.failing
            assert not spool.add(E1, 1, numbered(1))
            assert spool.oldest_epoch(()) is None
            disk(False)
            assert spool.add(E1, 1, numbered(1))
            assert not spool.failing


def flipped(path: Path) -> None:
    """Turn over every byte behind the header's first page."""
    content = path.read_bytes()
    path.write_bytes(content[:4096] + bytes(byte ^ 0xFF for byte in content[4096:]))


def cut(path: Path) -> None:
    """Leave half of the file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 - 100])


def overwritten(path: Path) -> None:
    """Put text in its place."""
    path.write_text("this is not a database\n" * 1000)


def without_tables(path: Path) -> None:
    """Take a table away."""
    with sqlite3.connect(path) as database:
        database.execute("DROP TABLE chunks")
    database.close()


@pytest.mark.parametrize("damage", [flipped, cut, overwritten, without_tables])
def test_a_damaged_file_is_moved_aside_and_a_new_one_begins(
    damage: Callable[[Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with spool_in(tmp_path) as spool:
        for seq in range(1, 400):
            spool.add(E1, seq, numbered(seq, faces=8))
    damage(tmp_path / FILE)
    damaged = (tmp_path / FILE).read_bytes()
    for _ in range(2):  # the second start is like any other
        with spool_in(tmp_path) as spool:
            spool.add(E2, 1, numbered(1))
            spool.settle(E2, 1, 1)
    assert (tmp_path / DAMAGED).read_bytes() == damaged
    assert caplog.text.count("it is damaged") == 1
    assert f"kept as {DAMAGED}" in caplog.text


def test_another_program_s_database_is_moved_aside_and_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with sqlite3.connect(tmp_path / FILE) as database:
        database.execute("CREATE TABLE recipes (name TEXT)")
    database.close()
    with spool_in(tmp_path, max_age_s=0.001) as spool:
        assert spool.add(E1, 1, numbered(1))
        spool.apply_rules()
    assert "another program has made it" in caplog.text
    with sqlite3.connect(tmp_path / FOREIGN) as database:
        assert database.execute("SELECT name FROM sqlite_schema").fetchone() == ("recipes",)
    database.close()


def test_a_spool_of_another_version_is_moved_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    open_database(tmp_path).execute("PRAGMA user_version=77")
    with spool_in(tmp_path) as spool:
        assert spool.add(E1, 1, numbered(1))
    assert "it is of version 77" in caplog.text


def test_damage_while_it_runs_is_counted_and_what_comes_is_kept_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = Metrics()
    with spool_in(tmp_path, metrics) as spool:
        for seq in range(1, 600):
            assert spool.add(E1, seq, numbered(seq, faces=8))
        assert spool._database is not None
        spool._database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        flipped(tmp_path / FILE)
        spool._database.execute("PRAGMA shrink_memory")  # it reads the file again
        number = 600
        while not metrics.drops[SPOOL_DAMAGED]:
            spool.add(E1, number, numbered(number))
            number += 1
            assert number < 700
        assert metrics.drops[SPOOL_DAMAGED] >= 599 * 8
        assert spool.add(E2, 1, numbered(1))
        assert not spool.failing
        assert kept(spool, E2) == [1]
    assert "it is damaged" in caplog.text
