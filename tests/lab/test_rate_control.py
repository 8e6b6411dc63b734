"""A device over a line that shrinks and grows: it sends less, and more again."""

import os
import time
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.books import samples_of
from tests.support.lab import Lab
from tests.support.lab_device import LabDevice
from tests.support.link import FAR, Quality, linked
from tests.support.namespaces import why_not
from tests.support.rate_plot import draw

WIDE = Quality(delay_s=0.03, bits_per_s=64_000, queue_s=8.0)
NARROW = Quality(delay_s=0.03, bits_per_s=3_000, queue_s=8.0)
MAX_CHUNK_S = 2.0
PACED = ("--rate_control", "true", "--chunk_faces", "8", "--max_chunk_s", f"{MAX_CHUNK_S}")
SHOWN = {
    "rung": "mien_edge_rate_rung",
    "lag_s": "mien_edge_lag_seconds",
    "bytes": "mien_edge_payload_bytes_total",
    "faces": "mien_edge_faces_total",
}


def watched(device: LabDevice, series: dict[str, list[float]], seconds: float) -> None:
    """Note what the device shows, twice a second."""
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        page = samples_of(device.page)
        series.setdefault("time_s", []).append(time.monotonic())
        for name, metric in SHOWN.items():
            series.setdefault(name, []).append(page[metric, ""])
        time.sleep(0.5)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_a_line_that_shrinks_is_given_less_and_one_that_grows_all_again(lab: Lab) -> None:
    near, far, link = lab.stack.enter_context(linked(WIDE))
    cloud = lab.recognizer("--insecure", "true", network=far, host=FAR)
    consumer = lab.consumer(cloud.address, cloud, network=far)
    device = lab.device(cloud.address, "--insecure", "true", *PACED, network=near)
    device.until_recognised(20)
    series = lab.entry.series
    watched(device, series, 20)
    at_first = series["rung"][-1]
    link.change(NARROW)
    watched(device, series, 70)
    narrow = series["rung"][-1]
    link.change(WIDE)
    watched(device, series, 90)
    if path := os.environ.get("MIEN_LAB_RATE_PLOT"):
        draw(series, (20, 90), Path(path))
    assert at_first == 0
    assert narrow > 0
    assert series["rung"][-1] == 0
    device.see_nobody()
    lab.check_books(consumer, lambda: (device.account,))
    assert longest_chunk_s(device) <= MAX_CHUNK_S
    lab.entry.figures = {
        "steps down while narrow": narrow,
        "s of lag at most": max(series["lag_s"]),
        "changes of direction": directions(series["rung"]),
        "s a face waited for others at most": longest_chunk_s(device),
    }
    assert device.stop() == 0


def directions(rungs: list[float]) -> int:
    """How often what was sent turned from less to more, or from more to less."""
    steps = [later - earlier for earlier, later in pairwise(rungs) if later != earlier]
    return sum(a * b < 0 for a, b in pairwise(steps))


def longest_chunk_s(device: LabDevice) -> float:
    """From a chunk's first face to its last, by the frames' times, of all chunks."""
    faces = device.run.named("recognition")
    waited, at = [], 0
    while at < len(faces):  # a chunk's faces come one after the other
        chunk = faces[at : at + faces[at]["chunk_faces"]]
        waited.append(chunk[-1]["t_s"] - chunk[0]["t_s"])
        at += len(chunk)
    return max(waited)
