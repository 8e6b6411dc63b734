"""Framing faces as the bundle asks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_encoder.alignment import FaceAligner
from edge_encoder.similarity import apply, inverse
from mien.bitstream import MAX_BOX_PX, Box
from mien.bundle import Bundle
from mien.manifest import ImageSpec
from tests.unit.edge_encoder.test_similarity import similarity

LANDMARKS = ((15.0, 18.0), (32.0, 18.0), (23.5, 28.0), (17.0, 37.0), (30.0, 37.0))
SPEC = ImageSpec(1, 48, 48, LANDMARKS)


def test_a_face_that_is_framed_already_is_cut_out_as_it_is() -> None:
    picture = np.random.default_rng(0).integers(0, 255, (100, 120, 1), np.uint8).repeat(3, axis=2)
    landmarks = (np.array(LANDMARKS) + (20, 30)).astype(np.float32)
    crop = FaceAligner(SPEC).crop(picture, landmarks)
    assert crop.shape == (1, 48, 48)
    assert np.abs(crop[0].astype(int) - picture[30:78, 20:68, 0]).max() <= 1
    assert FaceAligner(SPEC).box(landmarks) == Box(20, 30, 48, 48)


def test_a_turned_and_enlarged_face_comes_out_upright() -> None:
    y, x = np.mgrid[0:48, 0:48]
    face = (120 + 60 * np.sin(x / 6) + 40 * np.cos(y / 5)).astype(np.uint8)
    to_picture = similarity(4.0, 0.5, 200.0, 60.0)
    grid = np.stack(np.meshgrid(np.arange(400), np.arange(400)), axis=-1).reshape(-1, 2)
    at = apply(inverse(to_picture), grid).reshape(400, 400, 2)
    wave = 120 + 60 * np.sin(at[..., 0] / 6) + 40 * np.cos(at[..., 1] / 5)
    picture = np.clip(wave, 0, 255).astype(np.uint8)[..., None].repeat(3, axis=2)
    landmarks = apply(to_picture, np.array(LANDMARKS)).astype(np.float32)
    crop = FaceAligner(SPEC).crop(picture, landmarks)[0]
    assert np.abs(crop[8:40, 8:40].astype(int) - face[8:40, 8:40]).mean() < 2


def test_a_mouth_that_opens_hardly_shrinks_the_face() -> None:
    aligner = FaceAligner(SPEC)
    closed = np.array(LANDMARKS) * 3
    opened = closed.copy()
    opened[3:, 1] += 6  # the corners of the mouth go down by 2 px of the crop
    rest, surprised = aligner.box(closed.astype(np.float32)), aligner.box(opened.astype(np.float32))
    assert abs(surprised.width / rest.width - 1) < 0.06


@given(st.floats(0.001, 1000), st.floats(-4, 4), st.floats(-1e5, 1e5), st.floats(-1e5, 1e5))
def test_every_box_can_be_coded(scale: float, angle: float, dx: float, dy: float) -> None:
    landmarks = apply(similarity(scale, angle, dx, dy), np.array(LANDMARKS)).astype(np.float64)
    box = FaceAligner(SPEC).box(landmarks)  # type: ignore[arg-type]
    assert 1 <= box.width <= MAX_BOX_PX
    assert 1 <= box.height <= MAX_BOX_PX
    assert max(abs(box.x), abs(box.y)) <= MAX_BOX_PX


def test_a_bundle_for_colour_is_refused(bundle: Bundle) -> None:
    with pytest.raises(ValueError, match="3 channels"):
        FaceAligner(ImageSpec(3, 48, 48, LANDMARKS))
