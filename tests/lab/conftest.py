"""The lab's bundle, a lab for each scenario, and the report at the end."""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import pytest

from mien.bundle import Bundle
from tests.support.lab import Entry, Lab
from tests.support.tiny_bundle import make_tiny_bundle

_ENTRIES = pytest.StashKey[list[Entry]]()


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture
def lab(request: pytest.FixtureRequest, bundle: Bundle, tmp_path: Path) -> Iterator[Lab]:
    entry = Entry(request.node.name.removeprefix("test_").replace("_", " "))
    request.config.stash.setdefault(_ENTRIES, []).append(entry)
    with ExitStack() as stack:
        yield Lab(bundle.folder, tmp_path, stack, entry)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """The books and figures of every scenario; as JSON too, where MIEN_LAB_REPORT names a file."""
    entries = [entry for entry in config.stash.get(_ENTRIES, []) if entry.rows or entry.figures]
    if not entries:
        return
    terminalreporter.section("lab")
    for entry in entries:
        terminalreporter.line(entry.title)
        shown = [f"{name} {count}" for name, count in entry.rows]
        shown += [f"{name} {value:.2f}" for name, value in entry.figures.items()]
        terminalreporter.line("    " + ", ".join(shown))
    if path := os.environ.get("MIEN_LAB_REPORT"):
        Path(path).write_text(json.dumps([asdict(entry) for entry in entries], indent=2) + "\n")
