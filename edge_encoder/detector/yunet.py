"""YuNet, through OpenCV: one small network, all faces at once.

Wu, Peng and Yu, "YuNet: A Tiny Millisecond-level Face Detector", Machine Intelligence Research
2023. OpenCV's `FaceDetectorYN` brings the code, the user brings the model file.
"""

from pathlib import Path

import cv2
import numpy as np
from cv2.typing import MatLike

from edge_encoder.detector.base import Detection, Image, resized, window_transform
from edge_encoder.similarity import apply, inverse, warp

DETECT_SCORE = 0.7
# Where a face has just been, a lower score is evidence enough.
REFINE_SCORE = 0.4
NMS_OVERLAP = 0.3
TOP_K = 200
# The window that a face is followed in: its side in px, and in sides of the face's square.
WINDOW_PX, WINDOW_FACES = 160, 1.7


class YunetDetector:
    """Detector over one YuNet model file.

    min_face_px: shortest side of the faces reported, after the image was shrunk.
    max_side_px: images with a longer side are shrunk to it first, which bounds the cost.
    """

    name = "yunet"

    def __init__(self, model: Path, *, min_face_px: int, max_side_px: int) -> None:
        # Two, for a change of input size makes OpenCV plan the network anew.
        self._whole = _open(model, (64, 64), DETECT_SCORE)
        self._window = _open(model, (WINDOW_PX, WINDOW_PX), REFINE_SCORE)
        self._min_face_px = min_face_px
        self._max_side_px = max_side_px

    def detect(self, image: Image) -> list[Detection]:
        """Every face of the image, best score first."""
        height, width = image.shape[:2]
        scale = min(1.0, self._max_side_px / max(height, width))
        size = round(width * scale), round(height * scale)
        if min(size) < self._min_face_px:
            # No room for a face, and OpenCV reads memory that is not the image's.
            return []
        if scale < 1.0:
            image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        self._whole.setInputSize(size)
        return [
            Detection(resized(face.landmarks, 1 / scale), face.score)
            for face in _detections(self._whole.detect(image)[1])
            if face.box[2] >= self._min_face_px
        ]

    def refine(self, image: Image, face: Detection) -> Detection | None:
        """The face where, or nearly where, `face` was; None when there is none."""
        to_window = window_transform(face.landmarks, WINDOW_PX, WINDOW_FACES)
        window = warp(image, to_window, (WINDOW_PX, WINDOW_PX))
        for found in _detections(self._window.detect(window)[1]):
            centre = found.box[:2] + found.box[2:] / 2
            # The one in the middle of the window, not a neighbour at its rim.
            if np.abs(centre - WINDOW_PX / 2).max() < WINDOW_PX / 6:
                landmarks = apply(inverse(to_window), found.landmarks)
                return Detection(landmarks.astype(np.float32), found.score)
        return None


def _open(model: Path, size: tuple[int, int], score: float) -> cv2.FaceDetectorYN:
    return cv2.FaceDetectorYN.create(str(model), "", size, score, NMS_OVERLAP, TOP_K)


def _detections(rows: MatLike | None) -> list[Detection]:
    """OpenCV's rows: a box, five landmarks (x, y) with the image's left eye first, a score."""
    if rows is None:
        return []
    faces = [
        Detection(row[4:14].reshape(5, 2).astype(np.float32), float(np.clip(row[14], 0.0, 1.0)))
        for row in rows
    ]
    return sorted(faces, key=lambda face: -face.score)
