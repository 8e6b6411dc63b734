"""A device that changes its bundle while it streams."""

import asyncio
import json
import os
import shutil
import signal
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from edge_encoder.bundle_switch import BundleSwitch
from edge_encoder.config import EdgeConfig
from edge_encoder.device import run
from edge_encoder.metrics import Metrics
from mien.backoff import Backoff
from mien.bundle import Bundle
from mien.errors import UnavailableError
from mien.exit_codes import ExitCode
from mien.rollout import change_rollout
from tests.support.moving_face import Scene, film
from tests.support.recognizer import Running, eventually, running_recognizer
from tests.support.reseal import reseal
from tests.support.tiny_bundle import EXPRESSIONS, make_tiny_bundle

WORDS = tuple(f"{name} or so" for name in EXPRESSIONS)
POLL_S = 0.02


@pytest.fixture
def first(tmp_path: Path) -> Bundle:
    return make_tiny_bundle(tmp_path / "bundles" / "first", name="first")


@pytest.fixture
def second(tmp_path: Path) -> Bundle:
    """Another codec, and other expressions, beside the repository."""
    other = make_tiny_bundle(tmp_path / "other", name="second", table_width=3.0)
    return reseal(tmp_path / "second", other, expressions=WORDS)


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """32 seconds of a face that trembles; no test sees its end."""
    pictures = [Scene().picture(60, 60), Scene().picture(62, 60)] * 400
    return film(tmp_path_factory.mktemp("clips") / "long.mp4", pictures)


def events(results: Path) -> list[dict[str, Any]]:
    """What was written so far, whole lines only."""
    text = results.read_text() if results.is_file() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def faces(results: Path, expressions: tuple[str, ...]) -> list[dict[str, Any]]:
    return [x for x in events(results) if tuple(x.get("probabilities", ())) == expressions]


async def streamed(
    running: Running, clip: Path, tmp_path: Path, steps: Callable[[Path], Any], **more: Any
) -> list[dict[str, Any]]:
    """Run a device on the clip; once `steps` are taken it is stopped as an operator does it."""
    results = tmp_path / "results.jsonl"
    settings: dict[str, Any] = {"cache": tmp_path / "cache", "pace": True} | more
    address = f"127.0.0.1:{running.serving.port}"
    device = asyncio.create_task(
        run(EdgeConfig(str(clip), address, results=str(results), **settings))
    )
    await eventually(lambda: device.done() or len(faces(results, EXPRESSIONS)) >= 8)
    await steps(results)
    assert not device.done()  # its handler of the signal is in place
    os.kill(os.getpid(), signal.SIGTERM)
    assert await device == ExitCode.OK
    return events(results)


async def test_a_promotion_changes_a_streaming_device_and_no_face_is_lost(
    first: Bundle, second: Bundle, long_clip: Path, tmp_path: Path
) -> None:
    repository = first.folder.parent

    async def promote(results: Path) -> None:
        shutil.copytree(second.folder, repository / "second")
        change_rollout(repository, lambda _: _.promote(first.bundle_id).promote(second.bundle_id))
        await eventually(lambda: len(faces(results, WORDS)) >= 8)
        # And back, for which nothing needs to be fetched.
        change_rollout(repository, lambda state: state.roll_back())
        before = len(faces(results, EXPRESSIONS))
        await eventually(lambda: len(faces(results, EXPRESSIONS)) >= before + 8)

    async with running_recognizer(repository, bundles_poll_s=POLL_S) as running:
        found = await streamed(running, long_clip, tmp_path, promote)
    summary = found[-1]
    assert found[0]["bundle_id"] == summary["bundle_id"] == first.bundle_id
    assert summary["faces_recognised"] == summary["faces_sent"] == summary["frames"]
    assert (summary["drops"], summary["errors"]) == ({}, {})
    recognised = [x for x in found if x["event"] == "recognition"]
    assert [x["frame"] for x in recognised] == list(range(summary["frames"]))
    assert {x["track_id"] for x in recognised} == {0}  # it is still the same face
    used = [tuple(x["probabilities"]) for x in recognised]
    changes = [used[0], *(b for a, b in pairwise(used) if a != b)]
    assert changes == [EXPRESSIONS, WORDS, EXPRESSIONS]
    names = {path.name for path in (tmp_path / "cache").iterdir()}
    assert names == {first.bundle_id, second.bundle_id}


async def test_a_device_with_a_bundle_of_its_own_keeps_it(
    first: Bundle, second: Bundle, long_clip: Path, tmp_path: Path
) -> None:
    repository = first.folder.parent

    async def promote(results: Path) -> None:
        shutil.copytree(second.folder, repository / "second")
        change_rollout(repository, lambda _: _.promote(second.bundle_id))
        role = {"bundle_id": second.bundle_id, "role": "promoted"}
        await eventually(lambda: running.sample("bundle_role", **role) == 1)
        before = len(faces(results, EXPRESSIONS))
        await eventually(lambda: len(faces(results, EXPRESSIONS)) >= before + 16)

    async with running_recognizer(repository, bundles_poll_s=POLL_S) as running:
        found = await streamed(running, long_clip, tmp_path, promote, bundle=first.folder)
    assert found[-1]["bundle_id"] == first.bundle_id
    assert found[-1]["faces_recognised"] == found[-1]["frames"]
    assert not faces(tmp_path / "results.jsonl", WORDS)


class Ends:
    """What a switch calls, with attempts that fail first."""

    def __init__(self, bundle: Bundle, failures: list[Exception]) -> None:
        self.bundle, self.failures = bundle, failures
        self.fetched: list[str] = []
        self.changed: list[Bundle] = []
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()

    async def fetch(self, bundle_id: str) -> Bundle:
        self.fetched.append(bundle_id)
        await self.may_go_on.wait()
        if self.failures:
            raise self.failures.pop(0)
        return self.bundle

    async def change(self, bundle: Bundle) -> None:
        self.changed.append(bundle)


def switch(ends: Ends, metrics: Metrics, current: str = "a" * 64) -> BundleSwitch:
    quick = Backoff(first_s=0.01, longest_s=0.02)
    return BundleSwitch(ends.fetch, ends.change, current, metrics, backoff=quick)


async def test_what_fails_is_tried_again_and_counted(bundle: Bundle) -> None:
    metrics = Metrics()
    ends = Ends(bundle, [UnavailableError("gone"), ValueError("a defect")])
    changing = switch(ends, metrics)
    async with changing.running():
        changing.want(bundle.bundle_id)
        await eventually(lambda: ends.changed == [bundle])
    assert ends.fetched == [bundle.bundle_id] * 3
    assert metrics.registry.get_sample_value("mien_edge_bundle_failures_total") == 2


async def test_only_the_latest_wish_counts_and_a_wish_for_what_is_there_is_none(
    bundle: Bundle,
) -> None:
    ends = Ends(bundle, [])
    changing = switch(ends, Metrics(), current=bundle.bundle_id)
    async with changing.running():
        changing.want(bundle.bundle_id)
        ends.may_go_on.clear()
        changing.want("b" * 64)
        await eventually(lambda: ends.fetched == ["b" * 64])
        for digit in "cde":  # while the one before is on its way
            changing.want(digit * 64)
        ends.may_go_on.set()
        await eventually(lambda: len(ends.changed) == 2)
    assert ends.fetched == ["b" * 64, "e" * 64]
