"""Lines that are slow, lossy or cut: the device in one network, all else in another."""

import os
import time
from dataclasses import dataclass

import pytest

from tests.support.consumer import Consumer
from tests.support.lab import Lab
from tests.support.lab_device import LabDevice
from tests.support.link import FAR, Link, Quality, linked
from tests.support.namespaces import why_not
from tests.support.services import Cloud
from tests.support.waiting import until

CELLULAR = Quality(delay_s=0.03, loss=0.02, bits_per_s=2_000_000)
NARROW = Quality(delay_s=0.03, loss=0.02, bits_per_s=256_000)
# Real time is MIEN_LAB_TIME=1. What is compressed: the outage, and the device's own waits with it.
# What is not: the system's TCP, and the camera, so that a tenth of the faces gather.
COMPRESSION = float(os.environ.get("MIEN_LAB_TIME", "10"))
TEN_MINUTES_S = 600 / COMPRESSION


@dataclass(frozen=True)
class Remote:
    """A device at the near end of a line; recognizer and consumer at the far one."""

    device: LabDevice
    cloud: Cloud
    consumer: Consumer
    link: Link


@pytest.fixture
def quality() -> Quality:
    return CELLULAR


@pytest.fixture
def settings() -> tuple[str, ...]:
    return ()


@pytest.fixture
def remote(lab: Lab, quality: Quality, settings: tuple[str, ...]) -> Remote:
    if reason := why_not():
        pytest.skip(reason)
    near, far, link = lab.stack.enter_context(linked(quality))
    cloud = lab.recognizer("--insecure", "true", network=far, host=FAR)
    consumer = lab.consumer(cloud.address, cloud, network=far)
    more = ("--insecure", "true", "--spool_chunks_per_s", "50", *settings)
    device = lab.device(cloud.address, *more, spool=True, network=near)
    return Remote(device, cloud, consumer, link)


@pytest.mark.parametrize(
    "quality",
    [
        pytest.param(NARROW, id="60 ms, 2% loss, 256 kbit/s"),
        pytest.param(CELLULAR, id="60 ms, 2% loss, 2 Mbit/s", marks=pytest.mark.long),
    ],
)
def test_over_a_slow_and_lossy_line_every_face_is_seen_once(lab: Lab, remote: Remote) -> None:
    remote.device.until_recognised(60)
    remote.device.see_nobody()
    books = lab.check_books(remote.consumer, lambda: (remote.device.account,))
    assert books.accounts[0].dropped.total() == 0
    lab.entry.figures = {"packets lost": remote.link.lost, "packets carried": remote.link.carried}
    assert remote.link.lost > 0
    assert remote.device.stop() == 0


@pytest.mark.long
def test_a_partition_of_30_s_costs_nothing(lab: Lab, remote: Remote) -> None:
    partition(lab, remote, 30)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "settings",
    [
        (
            *("--answer_timeout_s", f"{10 / COMPRESSION}"),
            *("--welcome_timeout_s", f"{max(5 / COMPRESSION, 1)}"),
        )
    ],
    ids=[f"in {TEN_MINUTES_S:.0f} s"],
)
def test_a_partition_of_10_minutes_costs_nothing(lab: Lab, remote: Remote) -> None:
    partition(lab, remote, TEN_MINUTES_S)


def partition(lab: Lab, remote: Remote, away_s: float) -> None:
    """Pull the plug in the middle of a stream, and put it back."""
    device, link = remote.device, remote.link
    device.until_recognised(20)
    link.cut.set()
    cut_s = time.monotonic()
    before = device.recognised
    time.sleep(away_s)
    waiting = device.account.waiting
    assert waiting > 0
    link.cut.clear()
    healed_s = time.monotonic()
    until(lambda: device.run.first_after(healed_s, "recognition") is not None)
    device.see_nobody()
    books = lab.check_books(remote.consumer, lambda: (device.account,))
    assert books.accounts[0].dropped.total() == 0
    first_s = device.run.first_after(healed_s, "recognition") or 0.0
    lab.entry.figures = {
        "s away": healed_s - cut_s,
        "faces that waited": waiting,
        "s from healed to the first result": first_s - healed_s,
        "s from healed to balanced books": time.monotonic() - healed_s,
    }
    assert device.recognised > before
    assert device.stop() == 0
