"""The commands of docs/identity.md, in its order, in a folder of their own."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from edge_encoder.config import parse_config as parse_edge
from mien.bundle import Bundle
from tests.support.certificates import TokenIssuer
from tests.support.metrics_page import metrics_page
from tests.support.services import PATIENCE_S, Cloud, edge, serving
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "identity.md"


def commands() -> list[list[str]]:
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


def of(*words: str) -> list[list[str]]:
    """The page's commands that begin so, each without those words."""
    return [line[len(words) :] for line in commands() if line[: len(words)] == list(words)]


def run(module: Sequence[str], arguments: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *module, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def at(cloud: Cloud, arguments: Sequence[str], port: int | None = None) -> list[str]:
    """The arguments with the page's ports replaced by those that the system chose."""
    there = f"localhost:{port or cloud.port}"
    return [re.sub(r"^localhost:5005[12]$", there, word) for word in arguments]


def without(arguments: Sequence[str], *names: str) -> list[str]:
    """The arguments but for some flags and their values."""
    pairs = zip(arguments[::2], arguments[1::2], strict=True)
    return [word for pair in pairs if pair[0] not in names for word in pair]


def test_every_command_of_the_page_does_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clip: Path, bundle: Bundle
) -> None:
    monkeypatch.chdir(tmp_path)
    issued = of("mien", "certificates")
    for arguments in issued:
        made = run(["-m", "mien.cli.main"], ["certificates", *arguments])
        assert made.returncode == 0, made.stderr
        assert Path(made.stdout.strip()).is_file()
    (serve,) = of("mien-cloud", "serve")
    issuer = TokenIssuer(tmp_path)
    Path("token.jwt").write_text(issuer.token())
    tokens = ["--token_port", "0", "--token_keys", str(issuer.path)]
    own = without(serve, "--bundles", "--host")
    # Loopback, and not all of the machine's addresses, is enough for a test.
    with serving(bundle.folder, tmp_path / "cloud.log", 0, *own, *tokens) as cloud:
        (check,) = of("python", "deploy/check_health.py")
        healthy = run([str(ROOT / "deploy" / "check_health.py")], at(cloud, check))
        assert healthy.returncode == 0, healthy.stderr
        _stream_and_watch(cloud, bundle.folder, clip, tmp_path)
    assert len(commands()) == len(issued) + 5, "the page has a command that is not tried here"


def _stream_and_watch(cloud: Cloud, bundle: Path, clip: Path, folder: Path) -> None:
    by_certificate, by_token = of("mien", "watch")
    watchers = [
        _watcher(at(cloud, by_certificate)),
        _watcher(at(cloud, by_token, cloud.token_port)),
    ]
    try:
        until(lambda: metrics_page(cloud.metrics_port)["mien_cloud_watchers"] == len(watchers))
        (device,) = of("mien-edge", "run")
        assert parse_edge(device).device_id == "door"
        more = without(at(cloud, device), "--source", "--server")
        with edge(clip, f"localhost:{cloud.port}", bundle, folder / "edge.log", *more) as running:
            events: list[Any] = []
            while (event := running.next_event(PATIENCE_S)) is not None:
                events.append(event)
            assert running.wait(PATIENCE_S) == 0, running.last_words()
        assert any(event["event"] == "recognition" for event in events)
        for watcher in watchers:
            out, said = watcher.communicate(timeout=PATIENCE_S)
            assert watcher.returncode == 0, said
            assert "door" in out
    finally:
        for watcher in watchers:
            watcher.kill()


def _watcher(arguments: Sequence[str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "mien.cli.main", "watch", *arguments, "--limit", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
