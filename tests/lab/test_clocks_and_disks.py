"""A clock that is set while it runs, a disk that fills, a recognizer that hardly reads."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.lab import Lab, stopped
from tests.support.services import Cloud
from tests.support.small_disk import small_disk
from tests.support.stepped_clock import SteppedClock
from tests.support.waiting import until

HOUR_S = 3600
LATE = ("--spool_chunks_per_s", "50")


def test_a_device_s_clock_that_jumps_costs_nothing_not_even_over_a_restart(
    lab: Lab, tmp_path: Path
) -> None:
    clock = SteppedClock(tmp_path / "clock")
    cloud = lab.recognizer()
    consumer = lab.consumer(cloud.address, cloud)
    device = lab.device(cloud.address, *LATE, spool=True, clock=clock)
    device.until_recognised(8)
    for ahead_s in (HOUR_S, -HOUR_S):
        with stopped(cloud):
            until(lambda: device.ledger.waiting >= 8)
            clock.step(ahead_s)
            device.kill()
        device.start()  # an epoch must grow, also when the clock went back
        device.until_recognised(8)
    device.see_nobody()
    books = lab.check_books(consumer, lambda: (device.ledger,))
    assert books.accounts[0].dropped.total() == 0
    assert len({epoch for _, epoch, _, _ in books.seen}) >= 3
    assert device.stop() == 0


@pytest.mark.long
def test_a_jump_ahead_of_more_than_the_spool_s_hours_makes_nothing_too_old(
    lab: Lab, tmp_path: Path
) -> None:
    clock = SteppedClock(tmp_path / "clock")
    cloud = lab.recognizer()
    consumer = lab.consumer(cloud.address, cloud)
    device = lab.device(cloud.address, *LATE, spool=True, clock=clock)
    device.until_recognised(8)
    with stopped(cloud):
        until(lambda: device.ledger.waiting >= 30)
        clock.step(25 * HOUR_S)  # --spool_hours is 24
        waiting = device.ledger.waiting
        until(lambda: device.ledger.waiting >= waiting + 8)  # its rules were applied with each
    device.until_recognised(8)
    device.see_nobody()
    books = lab.check_books(consumer, lambda: (device.account,))
    assert books.accounts[0].dropped.total() == device.ledger.dropped.total() == 0
    assert device.stop() == 0


def test_a_recognizer_s_clock_that_is_wrong_and_jumps_costs_its_consumers_nothing(
    lab: Lab, tmp_path: Path
) -> None:
    clock = SteppedClock(tmp_path / "clock")
    clock.step(HOUR_S)
    nats = lab.nats()
    # The devices' recognizer is another one than the consumers', so that only these feel the break.
    first, second = lab.recognizer(nats=nats), lab.recognizer(nats=nats, clock=clock)
    consumer = lab.consumer(second.address, second)
    device = lab.device(first.address, "--queue_chunks", "1024")
    for ahead_s in (-HOUR_S, 2 * HOUR_S):
        device.until_recognised(8)
        with consumer.away():  # it resumes with its token: what it has missed is held
            device.until_recognised(8)
        clock.step(ahead_s)
    device.until_recognised(8)
    device.see_nobody()
    lab.check_books(consumer, lambda: (device.account,))
    assert device.stop() == 0


@pytest.mark.long
def test_while_the_disk_is_full_faces_are_dropped_by_rule_only_and_counted(
    lab: Lab, tmp_path: Path
) -> None:
    (tmp_path / "door-spool").mkdir()
    with small_disk(tmp_path / "door-spool") as disk:
        cloud = lab.recognizer()
        consumer = lab.consumer(cloud.address, cloud)
        device = lab.device(cloud.address, *LATE, "--queue_chunks", "4", spool=True)
        device.until_recognised(8)
        disk(True)
        with stopped(cloud):  # more comes than the memory holds, and the disk takes nothing
            until(lambda: device.account.dropped["uplink_full"] > 4)
        disk(False)
        device.until_recognised(8)
        device.see_nobody()
        books = lab.check_books(consumer, lambda: (device.account,))
        assert books.accounts[0].dropped["uplink_full"] > 4
        assert device.stop() == 0


@contextmanager
def drowsy(cloud: Cloud) -> Iterator[None]:
    """The recognizer wakes for a moment every second, and reads what its kernel has taken."""
    awake = threading.Event()

    def doze() -> None:
        while not awake.is_set():
            with stopped(cloud):
                awake.wait(1.0)
            awake.wait(0.03)

    thread = threading.Thread(target=doze)
    thread.start()
    try:
        yield
    finally:
        awake.set()
        thread.join()


def test_a_recognizer_that_reads_slowly_makes_the_device_drop_by_rule_and_count(lab: Lab) -> None:
    cloud = lab.recognizer()
    consumer = lab.consumer(cloud.address, cloud)
    device = lab.device(cloud.address, "--chunk_faces", "1", "--queue_chunks", "4", frame_s=0.05)
    device.until_recognised(8)
    with drowsy(cloud):
        until(lambda: device.account.dropped["uplink_full"] > 8)
    device.until_recognised(8)
    device.see_nobody()
    lab.check_books(consumer, lambda: (device.account,))
    assert device.stop() == 0
