"""The released bundle, the demo clip, and a recognizer that serves."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mien.bundle import Bundle, load_bundle
from mien.cli.released import chosen_bundle
from tests.support.services import Cloud, serving

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    """The released bundle, or for work on another one the folder in MIEN_TEST_BUNDLE."""
    given = os.environ.get("MIEN_TEST_BUNDLE")
    return load_bundle(chosen_bundle(Path(given) if given else ROOT / "bundles"))


@pytest.fixture(scope="session")
def clip() -> Path:
    """The demo clip: 120 frames of 176×144, one man, surprised about frame 60."""
    path = ROOT / ".cache" / "demo" / "carphone_pristine.mp4"
    assert path.is_file(), "the demo clip is not there; `make test` fetches it"
    return path


@pytest.fixture(scope="module")
def cloud(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """One recognizer for the tests of a module."""
    with serving(bundle.folder, tmp_path_factory.mktemp("cloud") / "log") as running:
        yield running
