"""kill -9 of each process on the way, in the middle of a stream."""

import math
import time
from dataclasses import dataclass

import pytest

from tests.support.consumer import Consumer
from tests.support.lab import Lab, stopped
from tests.support.lab_device import LabDevice
from tests.support.waiting import until


@pytest.mark.parametrize(
    "outages_s",
    [
        pytest.param((0.0,), id="once"),
        pytest.param((0.0, 1.0, 3.0, 6.0, 12.0), id="for up to 12 s", marks=pytest.mark.long),
    ],
)
def test_a_recognizer_that_is_killed_and_comes_back_loses_and_doubles_nothing(
    lab: Lab, outages_s: tuple[float, ...]
) -> None:
    nats = lab.nats()
    cloud = lab.recognizer(nats=nats)
    consumer = lab.consumer(cloud.address, cloud)
    # Many small chunks: some are on their way, or their answers, at any moment.
    many = ("--chunk_faces", "1", "--queue_chunks", "4096")
    device = lab.device(cloud.address, *many, frame_s=0.05)
    recoveries: list[Recovery] = []
    for outage_s in outages_s:
        device.until_recognised(20)
        cloud.process.process.kill()
        killed_s = time.monotonic()
        time.sleep(outage_s)
        cloud = lab.recognizer(nats=nats, port=cloud.port)
        recoveries.append(recovered(device, consumer, killed_s))
    device.until_recognised(10)
    device.see_nobody()
    books = lab.check_books(consumer, lambda: (device.account,))
    assert books.accounts[0].dropped.total() == 0
    lab.entry.figures = {
        "s away at most": max(each.away_s for each in recoveries),
        "s from back to the device's first result at most": max(
            each.heard_s for each in recoveries
        ),
        "s from back to the consumer's first at most": max(each.seen_s for each in recoveries),
    }
    assert device.stop() == 0


@dataclass(frozen=True)
class Recovery:
    """Seconds a recognizer was away, and from its return to the first result."""

    away_s: float
    heard_s: float
    seen_s: float


def recovered(device: LabDevice, consumer: Consumer, killed_s: float) -> Recovery:
    """Called when the recognizer says that it serves; returns when both have results again."""
    back_s = time.monotonic()
    until(lambda: device.run.first_after(back_s, "recognition") is not None)
    until(lambda: consumer.first_after(back_s) is not None)
    heard_s = device.run.first_after(back_s, "recognition") or math.nan
    seen_s = consumer.first_after(back_s) or math.nan
    return Recovery(back_s - killed_s, heard_s - back_s, seen_s - back_s)


def test_a_device_that_is_killed_again_and_again_loses_and_doubles_nothing(lab: Lab) -> None:
    cloud = lab.recognizer()
    consumer = lab.consumer(cloud.address, cloud)
    device = lab.device(cloud.address, "--spool_chunks_per_s", "50", spool=True)
    for _ in range(2):
        device.until_recognised(8)
        # It hears no more, and cannot know what the recognizer has by the time it is killed.
        with stopped(cloud):
            until(lambda: device.ledger.waiting >= 8)
            device.kill()
        device.start()
    device.until_recognised(8)
    device.see_nobody()
    lab.check_books(consumer, lambda: (device.ledger,))
    assert device.stop() == 0


def test_while_nats_is_killed_everything_waits_and_goes_on_when_it_is_back(lab: Lab) -> None:
    nats = lab.nats()
    cloud = lab.recognizer(nats=nats)
    consumer = lab.consumer(cloud.address, cloud)
    device = lab.device(cloud.address, spool=True)
    device.until_recognised(10)

    nats.kill()
    until(lambda: device.account.waiting > 10)
    nats.start()

    device.until_recognised(20)
    device.see_nobody()
    books = lab.check_books(consumer, lambda: (device.account,))
    assert books.accounts[0].dropped.total() == 0
    assert device.stop() == 0
