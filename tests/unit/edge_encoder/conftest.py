"""What the edge's tests share: the tiny bundle, a clip of a drawn face, the real detector."""

from pathlib import Path

import pytest

from edge_encoder.detector import Detector, open_detector
from mien.bundle import Bundle
from tests.support.moving_face import film, walk
from tests.support.tiny_bundle import make_tiny_bundle

CLIP_FRAMES = 40


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CLIP_FRAMES frames of 320×240 at 25 a second, a drawn face in each."""
    return film(tmp_path_factory.mktemp("clips") / "walk.mp4", walk(CLIP_FRAMES))


@pytest.fixture(scope="session")
def detector() -> Detector:
    return open_detector()
