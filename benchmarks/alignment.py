"""Whether faces that the edge finds and aligns are recognised as well as the dataset's own crops.

Each labelled crop is enlarged and set into a larger picture, as a camera would see it; the edge's
detector finds it, the edge's aligner cuts it out, and both crops go through the same codec and
classifier. The comparison is paired: the same faces, those that were found.
"""

import argparse
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from edge_encoder.alignment import FaceAligner
from edge_encoder.detector import Detector, open_detector
from mien.bundle import ALL_FILES, Bundle, load_bundle
from trainer.data.layout import read_held_out
from trainer.evaluate import analysed, recognised

ENLARGED = 4
BORDER_PX = 96
BOOTSTRAPS = 2000


def run(options: argparse.Namespace) -> dict[str, Any]:
    """The figures, with the 95% interval of the paired difference in accuracy."""
    bundle = load_bundle(options.bundle, ALL_FILES)
    faces, split = read_held_out(options.data)
    pixels, truth = faces.pixels[: options.faces], faces.majority[: options.faces]
    detector = open_detector(options.detector_model)
    aligned, found = _aligned(pixels, detector, FaceAligner(bundle.manifest.image))
    own, own_bytes = _recognised(bundle, pixels)
    edge, edge_bytes = _recognised(bundle, aligned)
    own_right = own == truth
    edge_right = edge == truth[found]
    low, high = _interval(edge_right.astype(float) - own_right[found])
    return {
        "detector": detector.name,
        "split": split,
        "faces": len(pixels),
        "found": len(found),
        "accuracy_own_crops": float(own_right.mean()),
        "accuracy_own_crops_of_found": float(own_right[found].mean()),
        "accuracy_aligned_of_found": float(edge_right.mean()),
        "difference": float(edge_right.mean() - own_right[found].mean()),
        "difference_low": low,
        "difference_high": high,
        "payload_bytes_per_face_own_crops": own_bytes / len(pixels),
        "payload_bytes_per_face_aligned": edge_bytes / len(found),
    }


def _aligned(
    pixels: NDArray[np.uint8], detector: Detector, aligner: FaceAligner
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    crops, found = [], []
    for index, face in enumerate(tqdm(pixels[:, 0], desc=detector.name, unit="face")):
        scene = _scene(face)
        middle = np.array(scene.shape[1::-1]) / 2
        # Of several, the one in the middle: that is the labelled face.
        detections = sorted(
            detector.detect(scene),
            key=lambda d: float(np.linalg.norm(d.landmarks.mean(axis=0) - middle)),
        )
        if detections:
            crops.append(aligner.crop(scene, detections[0].landmarks))
            found.append(index)
    if not found:
        raise SystemExit(f"{detector.name} found none of the {len(pixels)} faces")
    return np.stack(crops), np.array(found)


def _scene(face: NDArray[np.uint8]) -> NDArray[np.uint8]:
    large = cv2.resize(face, None, fx=ENLARGED, fy=ENLARGED, interpolation=cv2.INTER_CUBIC)
    border = (BORDER_PX,) * 4
    grey = cv2.copyMakeBorder(large, *border, cv2.BORDER_CONSTANT, value=float(large.mean()))
    return np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), np.uint8)


def _recognised(bundle: Bundle, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.int64], int]:
    level = bundle.manifest.latent.default_level
    _, payloads, probabilities = recognised(bundle, analysed(bundle, pixels), level)
    return np.asarray(probabilities.argmax(axis=1)), sum(map(len, payloads))


def _interval(differences: NDArray[np.float64]) -> tuple[float, float]:
    random = np.random.default_rng(0)
    means = [random.choice(differences, len(differences)).mean() for _ in range(BOOTSTRAPS)]
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))
