"""What every detector answers, in pixels of the image it was given."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edge_encoder.similarity import Transform, fit_similarity, inverse, scale_of

Image = npt.NDArray[np.uint8]
Landmarks = npt.NDArray[np.float32]

# Where the landmarks lie in a face's square, as fractions of its side: the mean over 1,300 faces
# of FER2013 that MTCNN and YuNet both find. It fixes what a face's box is, whoever found it.
FACE_SHAPE: npt.NDArray[np.float64] = np.array(
    [[0.314, 0.387], [0.686, 0.387], [0.500, 0.603], [0.348, 0.774], [0.652, 0.774]]
)


@dataclass(frozen=True)
class Detection:
    """One face.

    landmarks: float32 (5, 2) left eye, right eye, nose tip, left and right corner of the mouth,
        as seen in the image: left is the smaller x. Pixel centres lie at integers.
    score: 0..1, comparable within one detector only.
    """

    landmarks: Landmarks
    score: float

    @property
    def box(self) -> npt.NDArray[np.float64]:
        """(x, y, width, height): the upright square about the face. It may leave the image.

        Made from the landmarks, so it means the same whichever detector found them.
        """
        to_face = inverse(window_transform(self.landmarks, 1.0))
        # The middle of a window of side 1 lies at (0, 0), and pixel edges half a pixel off centres.
        side = scale_of(to_face)
        corner = to_face[:, 2] + 0.5 - side / 2
        return np.array([*corner, side, side])


class Detector(Protocol):
    """Finds faces in one BGR image, uint8 (H, W, 3)."""

    @property
    def name(self) -> str:
        """What it is called in logs and summaries."""
        ...

    def detect(self, image: Image) -> list[Detection]:
        """Every face of the image, best score first."""
        ...

    def refine(self, image: Image, face: Detection) -> Detection | None:
        """The face where, or nearly where, `face` was; None when there is none.

        It looks at that place alone, upright and at the size the network likes best. So it is
        cheaper than `detect`, and its landmarks are steadier.
        """
        ...


def window_transform(
    landmarks: Landmarks, side: float, faces: float = 1.0, shift: float = 0.0
) -> Transform:
    """The similarity from the image to a square window in which the face stands upright.

    side: of the window, px. faces: of the window, in sides of the face's square.
    shift: how far below the middle the middle of the face's square comes, in window sides.
    """
    target = ((FACE_SHAPE - 0.5) / faces + 0.5 + (0.0, shift)) * side - 0.5
    return fit_similarity(landmarks, target)


def iou(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    """What two boxes (x, y, width, height) share, as a part of their union: 0..1."""
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[:2] + a[2:], b[:2] + b[2:])
    shared = float(np.prod(np.maximum(high - low, 0.0)))
    union = float(np.prod(a[2:]) + np.prod(b[2:])) - shared
    return shared / union if union > 0 else 0.0


def resized(landmarks: npt.NDArray[Any], scale: float) -> Landmarks:
    """Landmarks of an image as they are in the same image `scale` times as large."""
    return ((landmarks + 0.5) * scale - 0.5).astype(np.float32)
