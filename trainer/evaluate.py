"""What a bundle does on labelled faces, in real coded bytes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien.bitstream import Box, EncodedFace
from mien.bundle import ALL_FILES, Bundle, load_bundle
from mien.codec import ChunkCodec
from trainer.calibration import confidences
from trainer.data.faces import EXPRESSIONS, FaceSet
from trainer.data.layout import read_held_out, read_split
from trainer.figures import calibration_error, confusion, macro_f1, per_class, psnr_db
from trainer.runtime import Network, symbols_of

# The pixel classifier goes along for comparison; no service reads it.
PIXEL_FILE = "pixel.onnx"
BUNDLE_FILES = (*ALL_FILES, PIXEL_FILE)
# How faces are grouped and stamped for counting bytes: as a device that sees one face ten times
# a second, so that time, track and box are in the figure.
CHUNK_FACES = 8
FACE_INTERVAL_MS = 100


def evaluate(folder: Path, data: Path, split: str | None = None) -> dict[str, Any]:
    """Figures of the bundle in folder on one split of data; on its held-out one unless named.

    Symbols come out of the payload again before they are classified: what is measured is what
    went over the wire.
    """
    bundle = load_bundle(folder, BUNDLE_FILES)
    if bundle.manifest.expressions != EXPRESSIONS:
        raise ValueError(f"the bundle's expressions {bundle.manifest.expressions} are not ours")
    faces, name = (read_split(data, split), split) if split else read_held_out(data)
    return {"split": name, **evaluate_faces(bundle, faces)}


def evaluate_faces(bundle: Bundle, faces: FaceSet) -> dict[str, Any]:
    """As evaluate, for faces in memory."""
    if not len(faces):
        raise ValueError(f"no labelled face to evaluate; left out: {dict(faces.left_out)}")
    pixels = faces.pixels[:]
    symbols, payload_bytes, probabilities = recognised(bundle, pixels)
    calibration = bundle.manifest.calibration
    temperature = calibration.temperature if calibration else 1.0
    reconstruction = Network(bundle.path("synthesis.onnx"))(symbols)
    pixel = Network(bundle.path(PIXEL_FILE))(pixels)
    truth = faces.majority
    matrix = confusion(truth, probabilities.argmax(axis=1), len(EXPRESSIONS))
    pixel_matrix = confusion(truth, pixel.argmax(axis=1), len(EXPRESSIONS))
    return {
        "bundle_id": bundle.bundle_id,
        "faces": len(faces),
        "left_out": dict(faces.left_out),
        "accuracy": float(np.trace(matrix) / matrix.sum()),
        "estimated_accuracy": float(np.mean(confidences(probabilities, temperature))),
        "macro_f1": macro_f1(matrix),
        "calibration_error": calibration_error(probabilities, truth),
        "payload_bytes_per_face": payload_bytes / len(faces),
        "latent_ideal_bytes_per_face": _ideal_bytes(bundle, symbols),
        "psnr_db": float(psnr_db(pixels, reconstruction).mean()),
        "pixel_accuracy": float(np.trace(pixel_matrix) / pixel_matrix.sum()),
        "pixel_macro_f1": macro_f1(pixel_matrix),
        "per_class": per_class(matrix, EXPRESSIONS),
        "confusion": matrix.tolist(),
    }


def recognised(
    bundle: Bundle, pixels: NDArray[np.uint8]
) -> tuple[NDArray[np.int32], int, NDArray[np.float32]]:
    """Faces, uint8 (N, 1, H, W), over the wire: decoded symbols, coded bytes, probabilities."""
    y = Network(bundle.path("analysis.onnx"))(pixels)
    symbols, payload_bytes = through_the_wire(bundle.codec(), symbols_of(y))
    return symbols, payload_bytes, Network(bundle.path("classifier.onnx"))(symbols)


def through_the_wire(
    codec: ChunkCodec, symbols: NDArray[np.int32]
) -> tuple[NDArray[np.int32], int]:
    """Encode in chunks and decode again. Returns the decoded symbols and the coded bytes."""
    decoded: list[NDArray[np.int32]] = []
    total = 0
    for chunk in chunks_of(symbols):
        payload = codec.encode(chunk)
        total += len(payload)
        decoded += [face.symbols for face in codec.decode(payload)]
    return np.stack(decoded), total


def chunks_of(symbols: NDArray[np.int32]) -> Iterator[list[EncodedFace]]:
    """Symbols int32 (N, C, H, W) as the chunks of a device that sees one face."""
    # The box walks as a face in view does; a constant one would cost nothing after the first.
    steps = np.random.default_rng(0).integers(-1, 2, (len(symbols), 4))
    boxes = (np.array([200, 120, 160, 160]) + steps.cumsum(axis=0) % 32).tolist()
    faces = [
        EncodedFace(index * FACE_INTERVAL_MS, 1, Box(*box), latent)
        for index, (box, latent) in enumerate(zip(boxes, symbols, strict=True))
    ]
    for start in range(0, len(faces), CHUNK_FACES):
        yield faces[start : start + CHUNK_FACES]


def _ideal_bytes(bundle: Bundle, symbols: NDArray[np.int32]) -> float:
    return float(np.mean([bundle.tables.ideal_bits(face) for face in symbols])) / 8


def report(figures: dict[str, Any]) -> str:
    """The figures as a person reads them."""
    rows = [
        f"faces                  {figures['faces']}  (left out: {figures['left_out'] or 'none'})",
        f"accuracy               {figures['accuracy']:.4f}",
        f"estimated_accuracy     {figures['estimated_accuracy']:.4f}",
        f"pixel_accuracy         {figures['pixel_accuracy']:.4f}",
        f"macro_f1               {figures['macro_f1']:.4f}",
        f"calibration_error      {figures['calibration_error']:.4f}",
        f"payload_bytes_per_face {figures['payload_bytes_per_face']:.2f}",
        f"psnr_db                {figures['psnr_db']:.2f}",
        "",
        f"{'expression':<12}{'faces':>7}{'precision':>11}{'recall':>8}{'f1':>7}",
    ]
    rows += [
        f"{name:<12}{row['faces']:>7}{row['precision']:>11.3f}{row['recall']:>8.3f}{row['f1']:>7.3f}"
        for name, row in figures["per_class"].items()
    ]
    return "\n".join(rows)


def write_json(figures: dict[str, Any], path: Path) -> None:
    """Write the figures, creating the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=2) + "\n")
