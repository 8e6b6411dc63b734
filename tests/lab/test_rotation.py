"""Certificates that live for a minute, renewed at both ends under a stream that goes on."""

import time
from datetime import timedelta

import pytest

from mien.identity import Role
from tests.support.books import samples_of
from tests.support.certificates import HOUR, Authority, flags
from tests.support.lab import Lab
from tests.support.lab_device import LabDevice
from tests.support.waiting import until

# Long enough for a busy machine to start three processes.
LIFE = timedelta(seconds=60)
RENEWALS = 3


def reconnects(device: LabDevice) -> dict[str, float]:
    """Reason → how often, of those that there were."""
    return {
        reason: count
        for (name, reason), count in samples_of(device.page).items()
        if name == "mien_edge_reconnects_total" and count
    }


@pytest.mark.long
def test_a_stream_outlives_the_certificates_it_began_with_and_loses_and_doubles_nothing(
    lab: Lab,
) -> None:
    authority = Authority.made(lab.folder / "certificates")
    consumer_files = authority.client(Role.CONSUMER, "shop")
    server, files = authority.server(valid=LIFE), authority.client(Role.DEVICE, "door", LIFE)
    first_end_s = files.read().expires_unix_s
    assert first_end_s is not None
    cloud = lab.recognizer(*flags(server))
    consumer = lab.consumer(cloud.address, cloud, files=consumer_files)
    # Many small chunks: some are on their way, or their answers, at any moment.
    many = ("--chunk_faces", "1", "--queue_chunks", "4096")
    device = lab.device(cloud.address, *many, *flags(files), frame_s=0.05)
    device.until_recognised(20)
    for renewed in range(1, RENEWALS + 1):
        if renewed == RENEWALS:  # whoever still used the first ones would not get in any more
            until(lambda: time.time() > first_end_s)
        authority.server(valid=HOUR)
        authority.client(Role.DEVICE, "door", HOUR)
        until(lambda n=renewed: reconnects(device).get("rotated", 0) == n, lambda: device.page)
        device.until_recognised(20)
    device.see_nobody()
    books = lab.check_books(consumer, lambda: (device.account,))
    assert books.accounts[0].dropped.total() == 0
    assert reconnects(device) == {"rotated": RENEWALS}
    lab.entry.figures = {"s from the first certificates' end": time.time() - first_end_s}
    assert device.stop() == 0
