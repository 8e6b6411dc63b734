"""Fitting similarities, and warping without aliasing."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_encoder.similarity import apply, fit_similarity, inverse, scale_of, warp

POINTS = np.array([[15.0, 18.0], [32.0, 18.5], [24.0, 28.0], [17.0, 37.0], [30.0, 36.0]])


def similarity(scale: float, angle: float, dx: float, dy: float) -> np.ndarray:
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[cos, -sin, dx], [sin, cos, dy]])


known = st.builds(
    similarity,
    st.floats(0.05, 20),
    st.floats(-np.pi, np.pi),
    st.floats(-2000, 2000),
    st.floats(-2000, 2000),
)


@given(known)
def test_a_known_similarity_is_recovered(transform: np.ndarray) -> None:
    fitted = fit_similarity(POINTS, apply(transform, POINTS))
    np.testing.assert_allclose(fitted, transform, rtol=1e-6, atol=1e-6)


@given(known)
def test_inverse_undoes(transform: np.ndarray) -> None:
    there_and_back = apply(inverse(transform), apply(transform, POINTS))
    np.testing.assert_allclose(there_and_back, POINTS, atol=1e-6)


@given(st.lists(st.tuples(st.floats(-50, 50), st.floats(-50, 50)), min_size=5, max_size=5))
def test_no_other_similarity_fits_better(noise: list[tuple[float, float]]) -> None:
    target = POINTS + np.array(noise)
    weights = np.array([3.0, 3.0, 1.0, 1.0, 1.0])
    fitted = fit_similarity(POINTS, target, weights)

    def misfit(transform: np.ndarray) -> float:
        return float(weights @ np.sum((apply(transform, POINTS) - target) ** 2, axis=1))

    best = misfit(fitted)
    for row, column in np.ndindex(2, 2):
        nudged = fitted.copy()
        # Changes that leave it a similarity: of scale and angle together, and of the shift.
        step = 1e-3 * (1 if row else -1)
        if column:
            nudged[:, :2] = nudged[:, :2] @ similarity(1 + step, step, 0, 0)[:, :2]
        else:
            nudged[:, 2] += step
        assert misfit(nudged) >= best - 1e-6


def test_a_single_point_is_refused() -> None:
    with pytest.raises(ValueError, match="two different points"):
        fit_similarity(np.ones((5, 2)), POINTS)


def test_scale_is_destination_pixels_a_source_pixel() -> None:
    assert scale_of(similarity(0.25, 1.0, 3, 4)) == pytest.approx(0.25)


def test_pixel_centres_stay_pixel_centres_when_an_image_is_halved() -> None:
    image = np.arange(16, dtype=np.uint8).reshape(4, 4) * 10
    halved = warp(image, np.array([[0.5, 0, -0.25], [0, 0.5, -0.25]]), (2, 2))
    np.testing.assert_allclose(halved, image.reshape(2, 2, 2, 2).mean(axis=(1, 3)), atol=1)


def test_a_warp_that_moves_nothing_changes_nothing() -> None:
    image = np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)
    unmoved = np.array([[1.0, 0, 0], [0, 1, 0]])
    np.testing.assert_array_equal(warp(image, unmoved, (40, 30)), image)


@pytest.mark.parametrize("shrink", [3, 7])
def test_fine_texture_is_averaged_away_and_not_aliased(shrink: int) -> None:
    texture = np.random.default_rng(0).integers(0, 256, (shrink * 48, shrink * 48), np.uint8)
    transform = similarity(1 / shrink, 0.3, 10.0, -5.0)
    plain = cv2.warpAffine(texture, transform, (48, 48), borderMode=cv2.BORDER_REFLECT)
    inside = (slice(16, 32), slice(16, 32))
    averaged = warp(texture, transform, (48, 48))[inside]
    # The mean over an area of n pixels has an nth of their variance.
    assert averaged.std() < 1.3 * texture.std() / shrink
    assert plain[inside].std() > 2 * averaged.std()


def test_beyond_its_edges_an_image_continues() -> None:
    image = np.full((10, 10, 3), 77, np.uint8)
    far = warp(image, similarity(0.5, 0.0, 300.0, 300.0), (48, 48))
    assert (far == 77).all()
