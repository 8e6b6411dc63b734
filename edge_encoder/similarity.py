"""Similarity transforms of the image plane: fit them to points, and warp images by them.

A transform is float64 (2, 3) [A | t] with A a rotation times a scale: p ↦ A p + t, in pixels
with centres at integers, as OpenCV has it.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Transform = npt.NDArray[np.float64]
Points = npt.NDArray[np.floating[Any]]
Image = npt.NDArray[np.uint8]

# Samples along one side of a destination pixel. 4 × 4 are 45 dB from the mean over the area of a
# face of 1000 px, and 53 dB for one of 300 px; a plain bilinear warp is 29 and 32 dB away.
MAX_SUPERSAMPLING = 4


def fit_similarity(source: Points, target: Points, weights: Points | None = None) -> Transform:
    """The similarity that takes `source` nearest to `target`, by weighted least squares.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns",
    1991, which in the plane and without reflection is one complex division.
    source, target: (N, 2), N ≥ 2, not all points of source the same.
    Raises ValueError when they are.
    """
    weight = np.ones(len(source)) if weights is None else np.asarray(weights, np.float64)
    weight = weight / weight.sum()
    source_mean, target_mean = weight @ source, weight @ target
    p = (source - source_mean) @ (1, 1j)
    q = (target - target_mean) @ (1, 1j)
    spread = float(weight @ np.abs(p) ** 2)
    if not spread > 1e-9:
        raise ValueError("a similarity needs at least two different points")
    a = complex(weight @ (np.conj(p) * q)) / spread
    linear = np.array([[a.real, -a.imag], [a.imag, a.real]])
    return np.column_stack([linear, target_mean - linear @ source_mean])


def apply(transform: Transform, points: Points) -> npt.NDArray[np.float64]:
    """Points (N, 2) → their images (N, 2)."""
    return np.asarray(points @ transform[:, :2].T + transform[:, 2], np.float64)


def inverse(transform: Transform) -> Transform:
    """The transform that undoes this one.

    By hand: NumPy's own inversion wakes OpenBLAS's threads, which then spin for a tenth of a
    second, and it is called for every face of every frame. It was half of a device's time.
    """
    linear = transform[:, :2].T / scale_of(transform) ** 2
    return np.column_stack([linear, -linear @ transform[:, 2]])


def scale_of(transform: Transform) -> float:
    """Destination pixels a source pixel."""
    return math.hypot(transform[0, 0], transform[1, 0])


def warp(image: Image, transform: Transform, size: tuple[int, int]) -> Image:
    """What the transform makes of an image, at its edges continued: uint8 (height, width[, C]).

    size: (width, height) of the result.
    Each result pixel is the mean over its own area, however much the image shrinks: a plain
    bilinear warp looks at four source pixels and lets fine texture (stubble, hair, sensor noise)
    alias into the crop, different in every frame.
    """
    import cv2  # here, for the supervisor of a fleet has no need of its 20 MB

    width, height = size
    samples = min(max(math.ceil(1 / max(scale_of(transform), 1e-6)), 1), MAX_SUPERSAMPLING)
    image, transform = _cut(image, transform, size)
    fine = transform * samples
    # The centre of a pixel lies in the middle of its samples.
    fine[:, 2] += (samples - 1) / 2
    warped = cv2.warpAffine(
        image,
        fine,
        (width * samples, height * samples),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    if samples > 1:
        warped = cv2.resize(warped, size, interpolation=cv2.INTER_AREA)
    return np.asarray(warped, np.uint8)


def _cut(image: Image, transform: Transform, size: tuple[int, int]) -> tuple[Image, Transform]:
    """The part of the image that the result can show, and the transform from there."""
    width, height = size
    corners = np.array([[-1, -1], [width, -1], [-1, height], [width, height]], np.float64)
    seen = apply(inverse(transform), corners)
    limits = np.array([image.shape[1], image.shape[0]])
    low = np.clip(np.floor(seen.min(axis=0)) - 1, 0, limits - 1).astype(int)
    high = np.clip(np.ceil(seen.max(axis=0)) + 2, low + 1, limits).astype(int)
    shifted = transform.copy()
    shifted[:, 2] += transform[:, :2] @ low
    return image[low[1] : high[1], low[0] : high[0]], shifted
