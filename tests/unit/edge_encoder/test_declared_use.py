"""What a device declares of its use, and what becomes of one that is refused."""

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import pytest

from edge_encoder.config import Context, EdgeConfig
from edge_encoder.spool.command import contents
from edge_encoder.spool.database import FILE, SCHEMA_VERSION
from mien.bundle import Bundle
from mien.declaration import ContextOfUse, LegalException
from mien.errors import ConfigError, SpoolError
from mien.exit_codes import ExitCode
from mien.messages.upward import Hello
from tests.support.fleet import fleet
from tests.support.recognizer import eventually, running_recognizer
from tests.support.spooling import BUNDLE_ID, kept, numbered, spool_in

TIMEOUT_S = 120
OLD_SCHEMA = """
CREATE TABLE epochs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    device_id TEXT NOT NULL, epoch INTEGER NOT NULL, start_unix_ms INTEGER NOT NULL,
    bundle_id TEXT NOT NULL, purpose TEXT NOT NULL, notice TEXT NOT NULL,
    UNIQUE (device_id, epoch)
);
CREATE TABLE chunks (
    epoch_id INTEGER NOT NULL, seq INTEGER NOT NULL, accepted_ms INTEGER NOT NULL,
    faces INTEGER NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (epoch_id, seq)
) WITHOUT ROWID;
CREATE TABLE books (
    name TEXT PRIMARY KEY, chunks INTEGER NOT NULL, faces INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
PRAGMA application_id=0x6D69656E;
PRAGMA user_version=1;
"""


def test_the_settings_words_are_those_of_the_declaration() -> None:
    assert list(get_args(Context)) == [context.word for context in ContextOfUse]
    exceptions = get_args(EdgeConfig.__annotations__["exception"])
    assert list(exceptions) == [exception.word for exception in LegalException]


def test_an_exception_needs_its_reason() -> None:
    with pytest.raises(ConfigError, match="exception safety needs its reason: give purpose"):
        EdgeConfig("0", context="workplace", exception="safety")


def run_edge(
    *arguments: str, env: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "edge_encoder.cli", "run", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S, env=env
    )


async def test_a_device_that_is_refused_ends_and_says_why(bundle: Bundle, clip: Path) -> None:
    async with running_recognizer(bundle.folder) as running:
        address = f"127.0.0.1:{running.serving.port}"
        arguments = ["--source", str(clip), "--server", address, "--bundle", str(bundle.folder)]
        arguments += ["--context", "workplace"]
        ran = await asyncio.to_thread(run_edge, *arguments)
        refusals = running.sample("policy_refusals_total", rule="exception", context="workplace")
    assert ran.returncode == ExitCode.POLICY
    assert refusals == 1, "it is not asked again"
    last = ran.stderr.strip().splitlines()[-1]
    assert last.startswith(f"mien-edge: {address} does not let this device in: refused by policy")
    assert "article 5(1)(f)" in last
    assert "exception: medical or safety" in last


async def test_a_fleet_leaves_a_refused_camera_until_its_settings_change(
    bundle: Bundle, clip: Path, tmp_path: Path
) -> None:
    cameras = tmp_path / "cameras.yaml"
    async with running_recognizer(bundle.folder) as running:
        defaults = {
            "server": f"127.0.0.1:{running.serving.port}",
            "bundle": str(bundle.folder),
        }

        def write(context: str) -> None:
            new = cameras.with_suffix(".new")
            one = {
                "defaults": defaults,
                "cameras": {"office": {"source": str(clip), "context": context}},
            }
            new.write_text(json.dumps(one))
            new.rename(cameras)

        write("education")
        async with fleet(cameras, tmp_path / "log") as supervised:
            event = await supervised.said("process", camera="office", state="refused")
            assert event["code"] == ExitCode.POLICY
            write("demonstration")
            await supervised.said("process", camera="office", state="ended")
            started = supervised.named("process", camera="office", state="started")
            assert len(started) == 2
            assert supervised.named("process", state="failed") == []
        await eventually(
            lambda: running.sample("admitted_streams_total", context="demonstration") > 0
        )


def test_what_waits_on_disk_keeps_what_was_declared(tmp_path: Path) -> None:
    hello = Hello(
        *("door", 7, 5, (BUNDLE_ID,), "to see it", "a sign"),
        context=ContextOfUse.WORKPLACE,
        exception=LegalException.MEDICAL,
    )
    with spool_in(tmp_path) as spool:
        assert spool.add(hello, 1, numbered(1))
    with spool_in(tmp_path) as spool:
        assert spool.oldest_epoch(set()) == hello


def test_a_spool_of_before_keeps_its_chunks_and_has_declared_nothing(tmp_path: Path) -> None:
    hello = Hello("door", 7, 5, (BUNDLE_ID,), "to see it", "a sign")
    with spool_in(tmp_path / "new") as spool:
        assert spool.add(hello, 1, numbered(1))
    new = sqlite3.connect(tmp_path / "new" / FILE)
    (row,) = new.execute("SELECT * FROM chunks").fetchall()
    new.close()
    folder = tmp_path / "old"
    folder.mkdir()
    old = sqlite3.connect(folder / FILE)
    old.executescript(OLD_SCHEMA)
    declared = ("door", 7, 5, BUNDLE_ID, "to see it", "a sign")
    old.execute("INSERT INTO epochs VALUES (1,?,?,?,?,?,?)", declared)
    old.execute("INSERT INTO chunks VALUES (1,?,?,?,?)", row[1:])
    old.execute("INSERT INTO meta VALUES ('last_epoch', 7)")
    old.commit()
    old.close()
    with pytest.raises(SpoolError, match=f"of version 1, this program writes {SCHEMA_VERSION}"):
        contents(folder)
    for _ in range(2):  # once brought up to date, then as it is
        with spool_in(folder) as spool:
            assert spool.oldest_epoch(set()) == hello
            assert kept(spool, hello) == [1]
    assert [path for path in folder.iterdir() if path.suffix == ".foreign"] == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="where caches lie")
async def test_a_device_leaves_nothing_on_disk(bundle: Bundle, clip: Path, tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME")}
    for folder in folders.values():
        folder.mkdir()
    # ONNX Runtime's own telemetry rests where one of these is set, whatever we do about it.
    env: dict[str, Any] = {
        name: value
        for name, value in os.environ.items()
        if name not in ("CI", "ORT_DISABLE_TELEMETRY")
    } | {name: str(folder) for name, folder in folders.items()}
    async with running_recognizer(bundle.folder) as running:
        address = f"127.0.0.1:{running.serving.port}"
        arguments = ["--source", str(clip), "--server", address, "--bundle", str(bundle.folder)]
        ran = await asyncio.to_thread(lambda: run_edge(*arguments, env=env))
    assert ran.returncode == ExitCode.OK, ran.stderr
    assert '"recognition"' in ran.stdout
    assert [path for folder in folders.values() for path in folder.rglob("*")] == []
