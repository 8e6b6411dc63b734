"""What a bundle does on labelled faces, in real coded bytes."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien.bitstream import Box, EncodedFace
from mien.bundle import ALL_FILES, Bundle, load_bundle
from mien.codec import ChunkCodec
from mien.holding import held_box, quantised
from trainer.calibration import confidences
from trainer.data.faces import EXPRESSIONS, FaceSet
from trainer.data.layout import read_held_out, read_split
from trainer.figures import calibration_error, confusion, macro_f1, per_class, psnr_db
from trainer.pictures import pictures
from trainer.runtime import AnalysisNetwork, Network

# The pixel classifier goes along for comparison; no service reads it.
PIXEL_FILE = "pixel.onnx"
BUNDLE_FILES = (*ALL_FILES, PIXEL_FILE)
# How faces are grouped and stamped for counting bytes: as a device that sees one face ten times
# a second, so that time, track and box are in the figure.
CHUNK_FACES = 8
FACE_INTERVAL_MS = 100
WALK_PX = 16
# What of accuracy the default level may give up for fewer bytes.
NEARLY = 0.003

Recognised = tuple[NDArray[np.int32], list[bytes], NDArray[np.float32]]
"""Decoded symbols, payloads, probabilities."""


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
    """As evaluate, for faces in memory. What is of one level is of the bundle's default."""
    if not len(faces):
        raise ValueError(f"no labelled face to evaluate; left out: {dict(faces.left_out)}")
    pixels, truth = faces.pixels[:], faces.majority
    level = bundle.manifest.latent.default_level
    y = analysed(bundle, pixels)
    runs = [recognised(bundle, y, index) for index in range(bundle.tables.levels)]
    levels = [_level_figures(bundle, run, truth, index) for index, run in enumerate(runs)]
    symbols, payloads, probabilities = runs[level]
    calibration = bundle.manifest.calibration
    temperature = calibration.temperature if calibration else 1.0
    pixel = Network(bundle.path(PIXEL_FILE))
    matrix = confusion(truth, probabilities.argmax(axis=1), len(EXPRESSIONS))
    pixel_matrix = confusion(truth, pixel(pixels).argmax(axis=1), len(EXPRESSIONS))
    return {
        "bundle_id": bundle.bundle_id,
        "faces": len(faces),
        "left_out": dict(faces.left_out),
        "default_level": level,
        "levels": levels,
        **levels[level],
        "estimated_accuracy": float(np.mean(confidences(probabilities, temperature))),
        "calibration_error": calibration_error(probabilities, truth),
        "pixel_accuracy": float(np.trace(pixel_matrix) / pixel_matrix.sum()),
        "pixel_macro_f1": macro_f1(pixel_matrix),
        # The same networks on the device, where nothing is coded but which expression it is.
        "label_alone_accuracy": levels[-1]["accuracy"],
        **_layer_figures(bundle, pixels, truth, symbols, payloads),
        "per_class": per_class(matrix, EXPRESSIONS),
        "confusion": matrix.tolist(),
    }


def default_level(bundle: Bundle, faces: FaceSet) -> int:
    """The level of the fewest bytes whose accuracy is within NEARLY of the best level's."""
    y = analysed(bundle, faces.pixels[:])
    answers = [
        classified(bundle, quantised(y, gains), level).argmax(axis=1)
        for level, gains in enumerate(bundle.tables.gains)
    ]
    right = [float(np.mean(answer == faces.majority)) for answer in answers]
    return next(level for level, share in enumerate(right) if share >= max(right) - NEARLY)


def _level_figures(
    bundle: Bundle, run: Recognised, truth: NDArray[np.int64], level: int
) -> dict[str, float]:
    symbols, payloads, probabilities = run
    matrix = confusion(truth, probabilities.argmax(axis=1), len(EXPRESSIONS))
    nothing = np.zeros((len(symbols), *_enhancement_shape(bundle)), np.int32)
    levels = np.full(len(symbols), level, np.int32)
    drawn = Network(bundle.path("synthesis.onnx"))(symbols, levels, nothing)
    read = Network(bundle.path(PIXEL_FILE))(drawn).argmax(axis=1)
    return {
        "accuracy": float(np.trace(matrix) / matrix.sum()),
        "macro_f1": macro_f1(matrix),
        "payload_bytes_per_face": sum(map(len, payloads)) / len(truth),
        "latent_ideal_bytes_per_face": _ideal_bytes(bundle, symbols, level),
        "drawn_pixel_accuracy": float(np.mean(read == truth)),
    }


def _enhancement_shape(bundle: Bundle) -> tuple[int, int, int]:
    shapes = [tables.shape for tables in bundle.layer_tables()]
    return sum(shape[0] for shape in shapes), *shapes[0][1:]


def _layer_figures(
    bundle: Bundle,
    pixels: NDArray[np.uint8],
    truth: NDArray[np.int64],
    symbols: NDArray[np.int32],
    payloads: list[bytes],
) -> dict[str, float]:
    """Bytes, PSNR and what the pixel classifier reads off reconstructions, after each layer."""
    pixel = Network(bundle.path(PIXEL_FILE))
    figures: dict[str, float] = {}
    for drawn in pictures(bundle, pixels, symbols, payloads, CHUNK_FACES):
        suffix = "" if drawn.all_layers else f"_after_{drawn.layers}_layers"
        figures[f"psnr_db{suffix}"] = float(psnr_db(pixels, drawn.faces).mean())
        read = pixel(drawn.faces).argmax(axis=1)
        figures[f"pixel_accuracy_of_reconstructions{suffix}"] = float(np.mean(read == truth))
        figures[f"bytes_per_face_with_layers{suffix}"] = drawn.total_bytes / len(pixels)
    return figures


def analysed(bundle: Bundle, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Latents y, float32 (N, C, H, W), of faces uint8 (N, 1, H, W)."""
    return AnalysisNetwork(bundle.path("analysis.onnx"))(pixels)


def recognised(bundle: Bundle, y: NDArray[np.float32], level: int) -> Recognised:
    """Latents, float32 (N, C, H, W), over the wire."""
    coded = quantised(y, bundle.tables.gains[level])
    symbols, payloads = through_the_wire(bundle.codec(), coded, level)
    return symbols, payloads, classified(bundle, symbols, level)


def classified(bundle: Bundle, symbols: NDArray[np.int32], level: int) -> NDArray[np.float32]:
    """Probabilities, float32 (N, K), of symbols int32 (N, C, H, W)."""
    levels = np.full(len(symbols), level, np.int32)
    return Network(bundle.path("classifier.onnx"))(symbols, levels)


def through_the_wire(
    codec: ChunkCodec, symbols: NDArray[np.int32], level: int
) -> tuple[NDArray[np.int32], list[bytes]]:
    """Encode in chunks and decode again. Returns the decoded symbols and the payloads."""
    payloads = [codec.encode(chunk) for chunk in chunks_of(symbols, level)]
    decoded = [face.symbols for payload in payloads for face in codec.decode(payload)]
    return np.stack(decoded), payloads


def chunks_of(symbols: NDArray[np.int32], level: int) -> Iterator[list[EncodedFace]]:
    """Symbols int32 (N, C, H, W) of one level as the chunks of a device that sees one face."""
    faces = [
        EncodedFace(index * FACE_INTERVAL_MS, 1, box, latent, level)
        for index, (box, latent) in enumerate(zip(walking(len(symbols)), symbols, strict=True))
    ]
    for start in range(0, len(faces), CHUNK_FACES):
        chunk = faces[start : start + CHUNK_FACES]
        # Held within a chunk as the edge holds it.
        for index in range(1, len(chunk)):
            box = held_box(chunk[index].box, chunk[index - 1].box)
            chunk[index] = replace(chunk[index], box=box)
        yield chunk


def walking(count: int) -> list[Box]:
    """Boxes of a face in view, as wide as high, as the edge's are: a pixel or none a step of its
    place and of its side, and back where one has gone too far."""
    steps = np.random.default_rng(0).integers(-1, 2, (count, 3)).cumsum(axis=0)
    gone = np.abs((steps + WALK_PX) % (4 * WALK_PX) - 2 * WALK_PX) - WALK_PX
    places = (np.array([216, 136, 176]) + gone).tolist()
    return [Box(x, y, side, side) for x, y, side in places]


def _ideal_bytes(bundle: Bundle, symbols: NDArray[np.int32], level: int) -> float:
    """By the prior that suits each face, without what tells which."""
    tables = bundle.tables
    bits = [
        tables.ideal_bits(face, tables.first_rows(level, tables.best_prior(face, level)))
        for face in symbols
    ]
    return float(np.mean(bits)) / 8


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
        f"psnr_db                {figures['psnr_db']:.2f} with all layers, "
        f"{figures['bytes_per_face_with_layers']:.1f} bytes a face",
        "",
        f"{'level':<8}{'accuracy':>9}{'macro-F1':>10}{'bytes':>8}",
        *(
            f"{level:<8}{row['accuracy']:>9.4f}{row['macro_f1']:>10.3f}"
            f"{row['payload_bytes_per_face']:>8.2f}"
            + (" (default)" if level == figures["default_level"] else "")
            for level, row in enumerate(figures["levels"])
        ),
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
