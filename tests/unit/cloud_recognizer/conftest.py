"""The tiny bundle, in a folder as an operator would have it."""

from pathlib import Path

import pytest

from mien.bundle import ALL_FILES, Bundle, load_bundle
from tests.support.tiny_bundle import make_foreign_bundle, make_tiny_bundle


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    tiny = make_tiny_bundle(folder / "tiny", created="2026-01-02")
    make_foreign_bundle(folder / "older", tiny, name="older")
    return folder


@pytest.fixture(scope="session")
def bundle(bundles: Path) -> Bundle:
    """The bundle that the server prefers."""
    return make_tiny_bundle(bundles / "tiny", created="2026-01-02")


@pytest.fixture(scope="session")
def older(bundles: Path) -> Bundle:
    """Another bundle that is served, which also fits."""
    return load_bundle(bundles / "older", ALL_FILES)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    make_tiny_bundle(tmp_path / "bundles" / "first", name="first", created="2026-01-01")
    return tmp_path / "bundles"


@pytest.fixture
def first(repository: Path) -> Bundle:
    return make_tiny_bundle(repository / "first", name="first", created="2026-01-01")


@pytest.fixture
def second(tmp_path: Path) -> Bundle:
    """A newer bundle, beside the repository."""
    return make_tiny_bundle(tmp_path / "second", name="second", created="2026-01-02")
