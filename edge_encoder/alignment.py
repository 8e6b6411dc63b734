"""Faces framed as the bundle was trained: upright, eyes and mouth at fixed places, 48×48 grey.

A similarity, so a face is turned, moved and scaled, and never sheared out of its expression.
"""

import cv2
import numpy as np
import numpy.typing as npt

from edge_encoder.detector.base import Image, Landmarks
from edge_encoder.similarity import fit_similarity, inverse, scale_of, warp
from mien.bitstream import MAX_BOX_PX, Box
from mien.manifest import ImageSpec

# Expressions do not move the eyes, so they decide; the others keep a turned head, whose eyes come
# closer, from being enlarged. The demo clip's mouth, opening wide, shrinks the face by 8% when all
# have one say, by 5% like this; with the eyes alone a head turned by 35° grows by 21%, so by 7%.
LANDMARK_WEIGHTS = np.array([4.0, 4.0, 2.0, 1.0, 1.0])

Crop = npt.NDArray[np.uint8]


class FaceAligner:
    """Cuts faces out as `image`, the manifest's, asks for. Raises ValueError unless it is grey."""

    def __init__(self, image: ImageSpec) -> None:
        if image.channels != 1:
            raise ValueError(
                f"faces are cut out in grey; the bundle wants {image.channels} channels"
            )
        self._size = image.width, image.height
        self._target = np.array(image.landmarks, np.float64)

    def crop(self, image: Image, landmarks: Landmarks) -> Crop:
        """The face with these landmarks (5, 2), out of a BGR image: uint8 (1, height, width)."""
        to_crop = fit_similarity(landmarks, self._target, LANDMARK_WEIGHTS)
        colour = warp(image, to_crop, self._size)
        return np.asarray(cv2.cvtColor(colour, cv2.COLOR_BGR2GRAY), np.uint8)[np.newaxis]

    def box(self, landmarks: Landmarks) -> Box:
        """What `crop` shows, as the upright rectangle of the same middle and size, px."""
        to_image = inverse(fit_similarity(landmarks, self._target, LANDMARK_WEIGHTS))
        middle = (np.array(self._size) - 1) / 2
        centre = to_image[:, :2] @ middle + to_image[:, 2] + 0.5
        width, height = (side * scale_of(to_image) for side in self._size)
        return Box(
            x=_within(centre[0] - width / 2, -MAX_BOX_PX),
            y=_within(centre[1] - height / 2, -MAX_BOX_PX),
            width=_within(width, 1),
            height=_within(height, 1),
        )


def _within(value: float, smallest: int) -> int:
    return min(max(round(value), smallest), MAX_BOX_PX)
