"""docs/million-devices.md multiplies the README's figures: the products must follow them."""

import math
import re
import shlex
from pathlib import Path

import nats
import pytest

from cloud_recognizer.config import CloudConfig, parse_config
from cloud_recognizer.hub.contract import Origin, watched
from cloud_recognizer.hub.nats_stream import STREAM
from cloud_recognizer.metrics import Metrics
from edge_encoder.servers import order
from mien.bitstream import Box
from mien.bundle import load_bundle
from mien.messages.results import ChunkResult, ItemStatus, Recognition
from tests.support.hubs import BUNDLE_ID, opened
from tests.support.metric_catalogue import ROOT
from tests.support.nats_server import nats_server

PAGE = (ROOT / "docs" / "million-devices.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
DEVICES = 10_000  # of a cell
FACES_PER_S = DEVICES * 0.1 * 10
SENT_PER_S = DEVICES * 0.1 * 2  # chunks
HOURS = 730


def measured(pattern: str) -> float:
    found = re.search(pattern, README)
    assert found is not None, f"the README has no {pattern}"
    return float(found[1].replace(",", ""))


SATURATED = measured(r"shared with their load \| ([\d,]+):")
UP, DOWN = (
    measured(r"chunks of 0\.5 s \| ([\d.]+) \(down"),
    measured(r"0\.5 s \| [\d.]+ \(down: ([\d.]+)\)"),
)
DECISION_14 = (ROOT / "docs" / "adr" / "0014-results-meet-in-a-stream.md").read_text("utf-8")
CHUNKS_PER_S = 3900


def test_the_recognizers_of_a_cell_follow_from_what_was_measured() -> None:
    half = SATURATED / 2
    assert f"| {half:,.0f} |" in PAGE
    by_load = math.ceil(FACES_PER_S / half)
    by_streams = math.ceil(DEVICES / CloudConfig(ROOT).max_streams)
    assert f"{FACES_PER_S:,.0f} faces a second of {half:,.0f} each | {by_load} |" in PAGE
    assert f"`--max_streams` {CloudConfig(ROOT).max_streams} each | {by_streams} |" in PAGE
    assert f"{CHUNKS_PER_S / 2 / 0.2:,.0f} devices" in PAGE
    assert f"{UP * FACES_PER_S / 1e6:.2f} and {DOWN * FACES_PER_S / 1e6:.2f} MB a second" in PAGE


def test_the_setting_for_more_streams_is_one_that_keeps_every_credit() -> None:
    flags = re.search(r"`(--max_streams 1536)` with\n?`(--queue_chunks[^`]+)`", PAGE)
    assert flags is not None
    config = parse_config(shlex.split(f"--bundles x {flags[1]} {flags[2]}"))
    assert config.stream_chunks // config.max_streams >= config.credits
    assert 7 * config.max_streams >= DEVICES, "eight, with one to spare"


def test_the_cost_of_a_thousand_devices_follows_from_what_was_measured() -> None:
    cores = 1000 / (SATURATED / 2) * 2
    assert f"| {cores:.1f} cores" in PAGE
    core_hours = (round(cores, 1) + 0.25) * HOURS
    sent_gb = DOWN * 1000 * HOURS * 3600 / 1e9
    costs = re.search(r"costs ([\d,]+)·c \+ (\d+)·g", PAGE)
    assert costs is not None
    assert float(costs[1].replace(",", "")) == pytest.approx(core_hours, abs=1)
    assert float(costs[2]) == pytest.approx(sent_gb, abs=1)


def stated(pattern: str) -> float:
    found = re.search(pattern, PAGE)
    assert found is not None, f"the page has no {pattern}"
    return float(found[1].replace(",", ""))


def test_what_streams_and_envoy_take_follows_from_what_was_measured() -> None:
    quiet_kb = measured(r"of Envoy, in plain text \| (\d+) kB")
    envoy_kb = measured(r"of Envoy, in plain text \| \d+ kB; (\d+) kB")
    assert quiet_kb == stated(r"processor time of all of them \| (\d+) kB")
    assert envoy_kb == stated(r"up and answered \| (\d+) kB")
    cores = SENT_PER_S * stated(r"up and answered \| \d+ kB; (\d+) µs") / 1e6
    memory_gb = DEVICES * envoy_kb / 1e6
    assert f"{cores:.2f} of a core and {memory_gb:.1f} GB for all" in PAGE
    assert f"{1536 * quiet_kb / 1e6:.2f} GB of streams each" in PAGE
    opened = stated(r"a recognizer opens a second \| (\d+) \|")
    for recognizers, said in ((20, "takes them {:.1f} s"), (8, "8 of them, {:.1f} s")):
        assert said.format(DEVICES / recognizers / opened) in PAGE
    idle = stated(r"processor time of all of them \| \d+ kB; ([\d.]+)% of a core")
    assert idle == pytest.approx(100 / 60, abs=0.05), "a sixtieth"


def test_two_cells_share_their_devices_so_each_is_sized_for_both() -> None:
    pair = ("one.example:443", "two.example:443")
    begin_at_the_first = sum(not order(pair, f"camera-{n}")[0] for n in range(DEVICES))
    assert begin_at_the_first / DEVICES == pytest.approx(0.5, abs=0.02)
    assert "half of them live in either\n  from the start" in PAGE
    assert f"{DEVICES:,} devices for the two,\n  each as below" in PAGE
    assert f"With {2 * DEVICES:,} the one" in PAGE
    assert f"would get {2 * SENT_PER_S:,.0f} chunks a\n  second" in PAGE
    assert SENT_PER_S < CHUNKS_PER_S < 2 * SENT_PER_S


def test_results_of_a_whole_minute_are_held_with_the_settings_that_the_page_names() -> None:
    flags = re.search(r"`(--retention_chunks [^`]+)`", PAGE)
    assert flags is not None
    config = parse_config(shlex.split(f"--bundles x {flags[1]}"))
    default = CloudConfig(ROOT)
    chunks = 60 * SENT_PER_S
    held_bytes = chunks * stated(r"five faces are stored in (\d+) bytes")
    assert f"{chunks:,.0f} chunks at the busiest time" in PAGE
    assert f"{chunks:,.0f} chunks are {held_bytes / 2**20:.0f} MiB" in PAGE
    assert default.retention_chunks < chunks <= config.retention_chunks
    assert default.retention_bytes < held_bytes <= config.retention_bytes
    assert f"`retention_chunks` ({default.retention_chunks:,}) is" in PAGE
    assert f"`retention_bytes` ({default.retention_bytes >> 20} MiB)" in PAGE


async def test_a_result_takes_as_much_of_nats_as_the_page_says(tmp_path: Path) -> None:
    expressions = load_bundle(ROOT / "bundles" / "ferplus-48").manifest.expressions
    faces = tuple(
        Recognition(
            n, 10**6 + 100 * n, 1234, Box(600, 300, 120, 121), "happiness", 0.5, (0.125,) * 8
        )
        for n in range(5)
    )
    origin = Origin("camera-01234", 1_764 * 10**12, 1_764 * 10**9, BUNDLE_ID, expressions)
    result = ChunkResult(100_000, ItemStatus.RESULT, BUNDLE_ID, faces)
    with nats_server(tmp_path) as server:
        async with opened(nats=server.address, nats_storage="file") as hub:
            await hub.hub.publish(origin, result)
            client = await nats.connect(server.address)
            stored = (await client.jetstream().stream_info(STREAM)).state.bytes
            await client.close()
    assert stored == pytest.approx(stated(r"five faces are stored in (\d+) bytes"), rel=0.02)
    held_mb = 60 * SENT_PER_S * watched(origin, result).to_proto().ByteSize() / 1e6
    assert held_mb == pytest.approx(stated(r"in memory, too, (\d+) MB"), rel=0.02)


def test_jpeg_takes_as_many_times_the_bytes_as_the_readme_says() -> None:
    assert f"take {measured(r'as accurate as the bundle.*: ([0-9.]+) and')} times as many" in PAGE


def test_a_nats_carries_as_many_chunks_as_its_decision_says() -> None:
    assert f"({CHUNKS_PER_S:,} chunks a second on a shared core)" in DECISION_14
    assert stated(r"decision 14\]\(adr/0014[^|]+\| ([\d,]+) \|") == CHUNKS_PER_S


def test_latencies_are_the_readme_s() -> None:
    p50, p99 = measured(r"p50 and p99 \| (\d+) and"), measured(r"p50 and p99 \| \d+ and (\d+) ms")
    assert f"p50 was {p50:.0f} ms and its p99 {p99:.0f} ms, between 5 and 10" in PAGE
    assert bucket_of(p99 / 1000) == (5, 10)
    assert f"{p99:.0f} ms\nsays that it lies between 5 and 10" in README


def bucket_of(seconds: float) -> tuple[float, float]:
    """The bounds, ms, of the bucket that the recognizer counts it in."""
    (family,) = Metrics().chunk_seconds.collect()
    bounds = sorted(float(s.labels["le"]) for s in family.samples if s.name.endswith("_bucket"))
    above = next(bound for bound in bounds if bound >= seconds)
    return 1000 * max(bound for bound in bounds if bound < seconds), 1000 * above


def test_what_streams_envoy_and_jpeg_cost_is_the_readme_s() -> None:
    opened = measured(r"opened a second; [^|]+ \| (\d+);")
    envoy_us = measured(r"a chunk of eight faces \| \d+; (\d+) µs")
    assert opened == stated(r"a recognizer opens a second \| (\d+) \|")
    assert f"open {opened:.0f} streams a second each" in PAGE
    assert envoy_us == stated(r"up and answered \| \d+ kB; (\d+) µs")
    times = measured(r"against the JPEG service's \| ([\d.]+) times")
    assert f"and {times} times\nthe cores" in PAGE
