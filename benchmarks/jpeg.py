"""JPEG faces: how they are coded, and the quality at which they are recognised as well as ours.

A device that sends JPEG sends the same aligned crop, grey, with optimised Huffman tables; the pixel
classifier that taught the bundle's own names the expression. Equal accuracy is asked of the least
quality: as accurate as the bundle from its payloads, or as the pixel classifier from the untouched
pixels where that is less, for no quality makes it better.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from benchmarks.sample import Sample
from edge_encoder.analysis import Analysis
from mien.bundle import Bundle

PIXEL_FILE = "pixel.onnx"
# What the released bundle's faces need by `chosen_quality` on FER2013Valid.
DEFAULT_QUALITY = 85
QUALITIES = (10, 20, 30, 40, 50, 60, 70, 75, 80, 85, 90, 95)
PIECE = 64


@dataclass(frozen=True)
class Choice:
    """A JPEG quality, and the accuracies it was chosen by: NaN where no face has a label."""

    quality: int
    accuracy: float = float("nan")
    accuracy_of_bundle: float = float("nan")
    accuracy_of_pixels: float = float("nan")

    def figures(self) -> dict[str, float]:
        """As a benchmark prints it; without labels there is no accuracy to print."""
        accuracies = {
            "jpeg_accuracy": self.accuracy,
            "jpeg_accuracy_without_coding": self.accuracy_of_pixels,
            "bundle_accuracy": self.accuracy_of_bundle,
        }
        known = {name: value for name, value in accuracies.items() if not math.isnan(value)}
        return {"jpeg_quality": self.quality, **known}


def encode(face: NDArray[np.uint8], quality: int) -> bytes:
    """One grey face, uint8 (1, H, W), as a JPEG file of the smallest size that OpenCV writes."""
    settings = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
    return bytes(cv2.imencode(".jpg", face[0], settings)[1])


def decode(file: bytes) -> NDArray[np.uint8] | None:
    """The grey face of a JPEG file, uint8 (H, W); None for anything else."""
    image = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_GRAYSCALE) if file else None
    return None if image is None else np.asarray(image, np.uint8)


def open_session(model: Path | bytes) -> ort.InferenceSession:
    """A network on one thread, as the recognizer runs its own."""
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    source = model if isinstance(model, bytes) else str(model)
    return ort.InferenceSession(source, settings, providers=["CPUExecutionProvider"])


def chosen_quality(bundle: Bundle, faces: Sample) -> Choice:
    """The least of QUALITIES that is accurate enough; DEFAULT_QUALITY without labels."""
    if faces.majority is None:
        return Choice(DEFAULT_QUALITY)
    pixel = open_session(bundle.path(PIXEL_FILE))
    symbols = _symbols(bundle, faces)
    level = np.full(len(symbols), bundle.manifest.latent.default_level, np.int32)
    ours = _share_right(open_session(bundle.path("classifier.onnx")), faces, symbols, level)
    untouched = _share_right(pixel, faces, faces.pixels)
    for quality in QUALITIES:
        accuracy = _share_right(pixel, faces, through_jpeg(faces.pixels, quality))
        if accuracy >= min(ours, untouched):
            break
    return Choice(quality, accuracy, ours, untouched)


def through_jpeg(pixels: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """Faces, uint8 (N, 1, H, W), coded and decoded again."""
    decoded = (decode(encode(face, quality)) for face in pixels)
    return np.stack([face for face in decoded if face is not None])[:, None]


def _symbols(bundle: Bundle, faces: Sample) -> NDArray[np.int32]:
    # The range coder is lossless, so what it would give back need not go through it.
    analysis = Analysis(bundle)
    return np.concatenate([analysis.symbols(list(piece)) for piece in _pieces(faces.pixels)])


def _share_right(
    session: ort.InferenceSession, faces: Sample, *batches: NDArray[np.generic]
) -> float:
    names = [node.name for node in session.get_inputs()]
    answers = [
        session.run(None, dict(zip(names, pieces, strict=True)))[0].argmax(axis=1)
        for pieces in zip(*map(_pieces, batches), strict=True)
    ]
    return float((np.concatenate(answers) == faces.majority).mean())


def _pieces(batch: NDArray[np.generic]) -> list[NDArray[np.generic]]:
    return [batch[start : start + PIECE] for start in range(0, len(batch), PIECE)]
