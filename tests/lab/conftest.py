"""The lab's bundle, a lab for each scenario, and the report at the end."""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from itertools import chain
from pathlib import Path

import pytest

from mien.bundle import Bundle
from tests.support import podman as podman_support
from tests.support.lab import Entry, Lab
from tests.support.podman import Podman
from tests.support.stand_ins import PYTHON, provide
from tests.support.tiny_bundle import make_tiny_bundle

_PROPERTY = "lab"


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture
def lab(request: pytest.FixtureRequest, bundle: Bundle, tmp_path: Path) -> Iterator[Lab]:
    entry = Entry(request.node.name.removeprefix("test_").replace("_", " "))
    try:
        with ExitStack() as stack:
            yield Lab(bundle.folder, tmp_path, stack, entry)
    finally:
        # With its report, which comes here from whatever process ran it.
        written = json.dumps(asdict(entry), default=float)
        request.node.user_properties.append((_PROPERTY, written))


@pytest.fixture(scope="module")
def store() -> Iterator[Podman]:
    """A Podman that has the images of docker-compose.yml's small set."""
    with podman_support.podman() as podman:
        provide(podman, PYTHON)
        podman.build("cloud", "edge")
        yield podman


@pytest.fixture
def podman(store: Podman) -> Iterator[Podman]:
    """The same, without containers of another test."""
    yield store
    store.clear()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The books and figures of every scenario; as JSON too, where MIEN_LAB_REPORT names a file."""
    reports = chain.from_iterable(terminalreporter.stats.values())
    entries = [
        Entry(**json.loads(value))
        for report in reports
        if getattr(report, "when", None) == "teardown"
        for name, value in report.user_properties
        if name == _PROPERTY
    ]
    entries = [entry for entry in entries if entry.rows or entry.figures]
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
