"""A device that starts while no server answers, with the encoder that it used last."""

import asyncio
import json
import os
import shutil
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from edge_encoder.config import EdgeConfig
from edge_encoder.device import run
from edge_encoder.encoder_cache import fetch_encoder
from edge_encoder.servers import Servers
from edge_encoder.spool.command import contents
from mien.bundle import EDGE_FILES, MANIFEST, Bundle
from mien.errors import UnavailableError
from mien.exit_codes import ExitCode
from mien.rollout import change_rollout
from mien.signing import SIGNATURES, sign
from tests.support.keys import Signer, make_signer
from tests.support.mjpeg_camera import MjpegCamera, walking
from tests.support.recognizer import eventually, running_recognizer
from tests.support.reseal import reseal
from tests.support.tiny_bundle import EXPRESSIONS, make_tiny_bundle

WORDS = tuple(f"{name} or so" for name in EXPRESSIONS)
POLL_S = 0.02


@pytest.fixture
def first(tmp_path: Path) -> Bundle:
    return make_tiny_bundle(tmp_path / "bundles" / "first", name="first")


@pytest.fixture
def second(first: Bundle, tmp_path: Path) -> Bundle:
    """Another codec, and other expressions."""
    other = make_tiny_bundle(tmp_path / "other", name="second", table_width=3.0)
    return reseal(first.folder.parent / "second", other, expressions=WORDS)


@pytest.fixture
def port() -> int:
    """One that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def nowhere(port: int) -> Servers:
    return Servers((f"127.0.0.1:{port}",))


def keep(cache: Path, bundle: Bundle, used_s: float) -> Path:
    """Put an encoder into a cache as if it had been fetched, and used at a Unix time."""
    folder = cache / bundle.bundle_id
    folder.mkdir(parents=True)
    for name in EDGE_FILES:
        shutil.copy(bundle.folder / name, folder)
    os.utime(folder, (used_s, used_s))
    return folder


def events(results: Path) -> list[dict[str, Any]]:
    """What was written so far, whole lines only."""
    text = results.read_text() if results.is_file() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def faces(results: Path, expressions: tuple[str, ...]) -> list[dict[str, Any]]:
    return [x for x in events(results) if tuple(x.get("probabilities", ())) == expressions]


def started(results: Path) -> list[str]:
    """The bundle that it began with."""
    return [event["bundle_id"] for event in events(results) if event["event"] == "started"]


async def test_a_spooled_camera_starts_in_an_outage_and_gets_the_new_bundle_after_it(
    first: Bundle, second: Bundle, port: int, tmp_path: Path
) -> None:
    cache, spool, results = tmp_path / "cache", tmp_path / "spool", tmp_path / "results.jsonl"
    keep(cache, first, 1.0)
    change_rollout(first.folder.parent, lambda _: _.promote(second.bundle_id))
    camera = MjpegCamera(walking)
    with camera.on() as url:
        config = EdgeConfig(
            *(url, f"127.0.0.1:{port}"),
            results=str(results),
            cache=cache,
            spool=spool,
            chunk_faces=2,
            device_id="door",
        )
        device = asyncio.create_task(run(config))
        await eventually(lambda: device.done() or started(results) != [])
        await eventually(lambda: device.done() or contents(spool)["faces"] >= 8)
        assert not device.done(), device
        assert started(results) == [first.bundle_id]
        async with running_recognizer(first.folder.parent, port=port, bundles_poll_s=POLL_S):
            await eventually(lambda: device.done() or len(faces(results, WORDS)) >= 8)
            assert not device.done(), device  # its handler of the signal is in place
            os.kill(os.getpid(), signal.SIGTERM)
            assert await device == ExitCode.OK
    summary = events(results)[-1]
    assert summary["bundle_id"] == second.bundle_id
    assert summary["errors"] == {}  # what was coded in the outage is recognised, too
    assert len(faces(results, EXPRESSIONS)) >= 8
    waits = contents(spool)["faces"]  # of the outage, what was not sent before the end
    assert summary["faces_recognised"] == summary["faces_sent"] - waits
    assert summary["drops"].keys() <= {"camera_newer_frame"}


async def test_of_what_is_kept_the_one_that_was_used_last_is_begun_with(
    first: Bundle, second: Bundle, nowhere: Servers, tmp_path: Path
) -> None:
    keep(tmp_path / "cache", first, 2.0)
    keep(tmp_path / "cache", second, 1.0)
    found = await fetch_encoder(nowhere, tmp_path / "cache", 60.0, goes_on=True)
    assert found.bundle_id == first.bundle_id


async def test_the_last_use_is_known_with_a_clock_that_was_never_set(
    first: Bundle, second: Bundle, nowhere: Servers, tmp_path: Path
) -> None:
    keep(tmp_path / "cache", first, 1.0)
    keep(tmp_path / "cache", second, time.time() + 86400.0)  # the clock has gone back since
    await fetch_encoder(nowhere, tmp_path / "cache", 0.0, first.bundle_id)
    found = await fetch_encoder(nowhere, tmp_path / "cache", 60.0, goes_on=True)
    assert found.bundle_id == first.bundle_id


async def test_what_was_damaged_on_disk_is_not_begun_with(
    first: Bundle, second: Bundle, nowhere: Servers, tmp_path: Path
) -> None:
    damaged = keep(tmp_path / "cache", first, 2.0)
    (damaged / MANIFEST).write_bytes(b"{}")
    keep(tmp_path / "cache", second, 1.0)
    found = await fetch_encoder(nowhere, tmp_path / "cache", 60.0, goes_on=True)
    assert found.bundle_id == second.bundle_id
    assert not damaged.exists()


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return make_signer(tmp_path / "keys", "ours")


async def test_what_no_trusted_key_has_signed_is_not_begun_with(
    first: Bundle, second: Bundle, signer: Signer, nowhere: Servers, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    unsigned = keep(cache, first, 2.0)
    with pytest.raises(UnavailableError):
        await fetch_encoder(nowhere, cache, 0.0, keys=signer.trusted, goes_on=True)
    assert unsigned.is_dir()
    sign(second.folder, second.bundle_id, signer.private)
    signed = keep(cache, second, 1.0)
    shutil.copy(second.folder / SIGNATURES, signed)
    found = await fetch_encoder(nowhere, cache, 60.0, keys=signer.trusted, goes_on=True)
    assert found.bundle_id == second.bundle_id


async def test_who_needs_a_server_waits_for_it_whatever_is_kept(
    first: Bundle, nowhere: Servers, tmp_path: Path
) -> None:
    keep(tmp_path / "cache", first, 1.0)
    with pytest.raises(UnavailableError, match="no recognizer"):
        await fetch_encoder(nowhere, tmp_path / "cache", 0.0)


async def test_without_a_kept_encoder_a_server_is_waited_for(
    nowhere: Servers, tmp_path: Path
) -> None:
    with pytest.raises(UnavailableError, match="no recognizer"):
        await fetch_encoder(nowhere, tmp_path / "cache", 0.0, goes_on=True)


async def test_a_server_that_answers_is_asked_first(
    first: Bundle, second: Bundle, nowhere: Servers, tmp_path: Path
) -> None:
    keep(tmp_path / "cache", first, 1.0)
    change_rollout(first.folder.parent, lambda _: _.promote(second.bundle_id))
    async with running_recognizer(first.folder.parent) as recognizer:
        servers = Servers((str(nowhere), f"127.0.0.1:{recognizer.serving.port}"))
        found = await fetch_encoder(servers, tmp_path / "cache", 60.0, goes_on=True)
    assert found.bundle_id == second.bundle_id
