"""The chunks on disk: their bounds, their order, and what a restart finds."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from edge_encoder.backlog import Backlog
from edge_encoder.epochs import Epochs
from edge_encoder.metrics import SPOOL_AGE, SPOOL_DAMAGED, SPOOL_FULL, UNCONFIRMED, Metrics
from edge_encoder.spool.database import DAMAGED, FILE
from edge_encoder.spool.seal import chunk_of
from edge_encoder.spool.shelf import Shelf
from mien.errors import ConfigError, SpoolError
from tests.support.spooling import ROW, Clock, epoch, kept, numbered, spool_in

E1, E2, E3 = epoch(1), epoch(2), epoch(3)


def test_what_is_kept_is_read_back_after_a_restart_with_its_epoch(tmp_path: Path) -> None:
    with spool_in(tmp_path) as spool:
        for seq in (1, 2, 3):
            assert spool.add(E1, seq, numbered(seq, faces=2))
        spool.settle(E1, 2, 2)
    with spool_in(tmp_path) as spool:
        assert spool.oldest_epoch(()) == E1
        assert kept(spool, E1) == [1, 3]
        assert spool.next_after(E1, 1) == (3, numbered(3, faces=2))
        assert (spool.total.chunks, spool.total.faces) == (2, 4)


def test_layers_are_not_among_what_is_kept(tmp_path: Path) -> None:
    viewable = b"a layer, which shows a face"
    with spool_in(tmp_path) as spool:
        assert spool.add(E1, 1, replace(numbered(1), layers=(viewable,)))
        assert spool.next_after(E1, 0) == (1, numbered(1))
    assert not any(viewable in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_an_epoch_is_sent_under_the_bundle_of_its_newest_chunk(tmp_path: Path) -> None:
    newest = "b" * 64
    with spool_in(tmp_path) as spool:
        epochs = Epochs(E1, 4, Metrics(), spool)
        epochs.offer(numbered(1))
        epochs.prefer(newest)
        epochs.offer(numbered(2))
        assert epochs.next()[0].bundle_ids == (newest, *E1.bundle_ids)
    with spool_in(tmp_path) as spool:
        waiting = spool.oldest_epoch(())
        assert waiting is not None
        assert waiting.bundle_ids == (newest,)
        assert kept(spool, waiting) == [1, 2]


def test_its_limit_is_shown_so_that_what_it_holds_can_be_compared(tmp_path: Path) -> None:
    metrics = Metrics()
    sample = metrics.registry.get_sample_value
    assert sample("mien_edge_spool_limit_bytes") == 0
    with spool_in(tmp_path, metrics, max_bytes=10 * ROW) as spool:
        assert spool.add(epoch(1), 1, numbered(1))
        assert sample("mien_edge_spool_bytes") == ROW
        assert sample("mien_edge_spool_limit_bytes") == 10 * ROW


def test_epochs_are_given_oldest_first_and_the_live_one_is_left_out(tmp_path: Path) -> None:
    with spool_in(tmp_path) as spool:
        for hello in (E2, E1, E3):  # the order of arrival, whatever their numbers are
            spool.add(hello, 1, numbered(1))
        assert spool.oldest_epoch(()) == E2
        assert spool.oldest_epoch({("door", 2)}) == E1
        spool.settle(E1, 1, 1)
        assert spool.oldest_epoch({("door", 2)}) == E3
        assert spool.oldest_epoch({("door", 2), ("door", 3)}) is None


def test_an_epoch_grows_even_when_the_clock_goes_back(tmp_path: Path) -> None:
    with spool_in(tmp_path) as spool:
        assert spool.next_epoch(100) == 100
        spool.add(epoch(100), 1, numbered(1))
        spool.settle(epoch(100), 1, 1)
        spool.apply_rules()
    with spool_in(tmp_path) as spool:
        assert spool.next_epoch(7) == 101
        assert spool.next_epoch(200) == 200


def test_beyond_its_bytes_the_oldest_go_and_are_counted(tmp_path: Path) -> None:
    metrics = Metrics()
    with spool_in(tmp_path, metrics, max_bytes=3 * ROW) as spool:
        spool.add(E1, 1, numbered(1))
        for seq in range(1, 5):
            assert spool.add(E2, seq, numbered(seq))
            assert spool.total.size <= 3 * ROW
        assert spool.oldest_epoch(()) == E2
        assert kept(spool, E2) == [2, 3, 4]
        assert metrics.drops == {SPOOL_FULL: 2}
        assert spool.dropped_until(E2) == 1


def test_what_is_too_old_goes_and_is_counted_apart(tmp_path: Path) -> None:
    metrics, clock = Metrics(), Clock()
    with spool_in(tmp_path, metrics, clock, max_age_s=60.0) as spool:
        spool.add(E1, 1, numbered(1, faces=3))
        clock.now_ms += 60_000
        spool.add(E1, 2, numbered(2))
        assert kept(spool, E1) == [1, 2]
        clock.now_ms += 1
        spool.apply_rules()
        assert kept(spool, E1) == [2]
        assert metrics.drops == {SPOOL_AGE: 3}


def test_time_that_passes_while_nothing_runs_counts(tmp_path: Path) -> None:
    metrics, clock = Metrics(), Clock()
    with spool_in(tmp_path, clock=clock, max_age_s=60.0) as spool:
        spool.add(E1, 1, numbered(1))
    clock.now_ms += 60_001
    with spool_in(tmp_path, metrics, clock, max_age_s=60.0) as spool:
        spool.apply_rules()
        assert spool.total.chunks == 0
        assert metrics.drops == {SPOOL_AGE: 1}


def test_a_clock_that_was_ahead_keeps_nothing_for_longer(tmp_path: Path) -> None:
    clock = Clock()
    clock.now_ms += 10**9
    with spool_in(tmp_path, clock=clock, max_age_s=60.0) as spool:
        spool.add(E1, 1, numbered(1))
    clock.now_ms -= 10**9
    with spool_in(tmp_path, clock=clock, max_age_s=60.0) as spool:
        clock.now_ms += 60_001
        spool.apply_rules()
        assert spool.total.chunks == 0


def test_what_is_in_flight_is_never_dropped(tmp_path: Path) -> None:
    metrics, clock = Metrics(), Clock()
    with spool_in(tmp_path, metrics, clock, max_bytes=2 * ROW, max_age_s=1.0) as spool:
        spool.add(E1, 1, numbered(1))
        spool.add(E1, 2, numbered(2))
        spool.hold(E1, 1)
        clock.now_ms += 10_000
        spool.apply_rules()
        assert kept(spool, E1) == [1]
        spool.add(E1, 3, numbered(3))
        spool.hold(E1, 3)
        assert not spool.add(E1, 4, numbered(4))  # nothing is left that may go
        assert kept(spool, E1) == [1, 3]
        spool.release(E1, 1)
        assert spool.add(E1, 4, numbered(4))
        assert kept(spool, E1) == [3, 4]
        assert metrics.drops == {SPOOL_AGE: 2}


def test_a_backlog_does_not_send_what_a_rule_has_dropped(tmp_path: Path) -> None:
    metrics = Metrics()
    with spool_in(tmp_path, metrics, max_bytes=2 * ROW) as spool:
        backlog = Backlog(10, 4, Shelf(spool, E1))
        for number in range(1, 5):
            assert backlog.offer(numbered(number)) is None
        assert backlog.waiting == 2
        assert backlog.next_to_send() == (3, numbered(3))
        assert metrics.drops == {SPOOL_FULL: 2}


def test_what_was_sent_and_not_kept_is_unconfirmed_when_its_epoch_has_fallen_behind(
    tmp_path: Path,
) -> None:
    metrics = Metrics()
    with spool_in(tmp_path, metrics, max_bytes=4 * ROW) as spool:
        epochs = Epochs(E1, 2, metrics, spool)
        epochs.offer(numbered(1, faces=200))  # larger than all that the spool may hold
        assert epochs.backlog.next_to_send() == (1, numbered(1, faces=200))
        for number in (2, 3, 4):
            epochs.offer(numbered(number))
        assert epochs.backlog.behind
        epochs.welcomed(*epochs.next())
        assert metrics.drops == {UNCONFIRMED: 200}
        assert kept(spool, E1) == [2, 3, 4]


def test_the_file_is_hardly_larger_than_what_it_counts(tmp_path: Path) -> None:
    with spool_in(tmp_path, max_bytes=500_000) as spool:
        for seq in range(1, 6000):
            spool.add(E1, seq, numbered(seq, faces=8))
        counted = spool.total.size
    assert counted > 490_000
    assert (tmp_path / FILE).stat().st_size < 1.4 * counted


def test_one_process_writes_to_a_spool(tmp_path: Path) -> None:
    with (
        spool_in(tmp_path),
        pytest.raises(ConfigError, match="another mien-edge"),
        spool_in(tmp_path),
    ):
        pass


def test_others_may_not_read_it(tmp_path: Path) -> None:
    with spool_in(tmp_path / "spool") as spool:
        spool.add(E1, 1, numbered(1))
        modes = {path.name: path.stat().st_mode & 0o077 for path in (tmp_path / "spool").iterdir()}
        assert FILE + "-wal" in modes
        assert set(modes.values()) == {0}
        assert (tmp_path / "spool").stat().st_mode & 0o077 == 0


def test_a_folder_that_cannot_be_made_is_a_wrong_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"spool: .*cannot be"), spool_in(tmp_path / "file/x"):
        pass
    (tmp_path / "spool" / FILE).mkdir(parents=True)
    with pytest.raises(ConfigError, match="cannot be written"), spool_in(tmp_path / "spool"):
        pass


@pytest.mark.parametrize("body", [b"", b"\x01", b"\x02\x00\x00abc", b"\x01\xff\xffabc"])
def test_a_body_that_was_never_written_is_refused(body: bytes) -> None:
    with pytest.raises(SpoolError):
        chunk_of(body)


def test_a_chunk_that_cannot_be_read_is_dropped_alone(tmp_path: Path) -> None:
    metrics = Metrics()
    with spool_in(tmp_path, metrics) as spool:
        for seq in (1, 2, 3):
            spool.add(E1, seq, numbered(seq, faces=2))
        assert spool._database is not None
        spool._database.execute("UPDATE chunks SET body=x'0200' WHERE seq=2")
        assert kept(spool, E1) == [1, 3]
        assert metrics.drops == {SPOOL_DAMAGED: 2}


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.support.spooling import epoch, numbered, spool_in
with spool_in(Path(sys.argv[1])) as spool:
    for seq in range(1, 101):
        assert spool.add(epoch(1), seq, numbered(seq))
    spool.settle(epoch(1), 0, 10)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_kill_9_loses_nothing_that_was_accepted(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False, timeout=60)
    assert done.returncode == -9
    with spool_in(tmp_path) as spool:
        assert kept(spool, E1) == list(range(11, 101))


def test_a_damaged_file_that_was_moved_aside_is_kept_no_longer_than_a_chunk(
    tmp_path: Path,
) -> None:
    (tmp_path / FILE).write_bytes(b"no database at all, but long enough to be looked at" * 100)
    with spool_in(tmp_path, max_age_s=60.0) as spool:
        spool.apply_rules()
        assert (tmp_path / DAMAGED).is_file()
        os.utime(tmp_path / DAMAGED, (0, 0))
        spool.apply_rules()
        assert not (tmp_path / DAMAGED).exists()
