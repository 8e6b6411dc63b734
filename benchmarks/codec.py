"""What coding costs: bytes beyond the tables' ideal, and processor time a face by each path.

Times are processor time of this process, the least of several rounds in which the paths take turns,
so that a busy machine touches all alike; the ratios are what to trust. Decoding goes through
`ChunkCodec.decode_chunks` with 256 faces, checksums and dataclasses included. Beside it stand what
each quality level and layer says of the same faces, JPEG, WebP, AVIF and JPEG XL on them, and what
the base layer saves against the methods of the published study.
"""

import argparse
import os
from collections.abc import Callable
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.layers import layering
from benchmarks.paths import PATHS
from benchmarks.rivals import rivals
from benchmarks.timing import least_s
from cloud_recognizer.model import ExpressionModel, RuntimeOptions
from edge_encoder.analysis import Analysis
from mien.bitstream import HEADER_BYTES, EncodedFace, Limits
from mien.bundle import ALL_FILES, Bundle, load_bundle
from mien.choosing import chosen
from mien.codec import ChunkCodec
from mien.holding import quantised
from mien.plain_reader import PlainReader
from mien.tables import CdfTables
from trainer.compare.shipped import savings
from trainer.data.faces import FaceSet
from trainer.data.layout import read_held_out
from trainer.evaluate import (
    CHUNK_FACES,
    analysed,
    chunks_of,
    classified,
    evaluate_faces,
    through_the_wire,
)
from trainer.fit import limited

FACES = 800
BATCH_FACES = 256
RESULTS = Path(__file__).parents[1] / "docs" / "results"
STRENGTHS = (0.0, 0.02, 0.05)
"""Of the choice of symbols; 0 rounds."""
Chunks = list[list[EncodedFace]]


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Overheads, sizes and times over chunks of eight held-out faces, and of one."""
    bundle = load_bundle(options.bundle, ALL_FILES)
    faces, split = read_held_out(options.data)
    faces = limited(faces, options.faces or FACES)
    pixels, truth = faces.pixels[:], faces.majority
    ours = _levels_and_layers(bundle, faces)
    level = bundle.manifest.latent.default_level if options.level is None else options.level
    y = analysed(bundle, pixels)
    symbols = quantised(y, bundle.tables.gains[level])
    chunks = list(chunks_of(symbols, level))
    return {
        "split": split,
        "level": level,
        "faces": len(symbols),
        **_sizes(bundle.codec(), chunks),
        **ours,
        **rivals(bundle, pixels, truth, ours["all_layers_bytes_per_face"]),
        **_shipped(options.bundle),
        "load_average": os.getloadavg()[0],
        **_encoding(bundle, pixels[:BATCH_FACES], chunks),
        **_decoding(bundle, chunks),
        **_choosing(bundle, y, truth, level),
        "classify_us_per_face": _classifying(bundle, symbols[:BATCH_FACES], level),
        **layering(bundle, pixels),
    }


def _sizes(codec: ChunkCodec, chunks: Chunks) -> dict[str, float]:
    payloads = [codec.encode(chunk) for chunk in chunks]
    overheads = [
        len(payload) - HEADER_BYTES - codec.ideal_bits(chunk) / 8
        for payload, chunk in zip(payloads, chunks, strict=True)
    ]
    return {
        "header_bytes_a_chunk": HEADER_BYTES,
        "overhead_bytes_a_chunk_mean": float(np.mean(overheads)),
        "overhead_bytes_a_chunk_max": float(np.max(overheads)),
        "payload_bytes_per_face": sum(map(len, payloads)) / sum(map(len, chunks)),
    }


def _levels_and_layers(bundle: Bundle, faces: FaceSet) -> dict[str, float]:
    """Bytes and accuracy of every level and layer, as `mien-train evaluate` has them."""
    found = evaluate_faces(bundle, faces)
    levels = {
        f"level_{level}_{key}": row[key]
        for level, row in enumerate(found["levels"])
        for key in ("payload_bytes_per_face", "accuracy")
    }
    return {
        **levels,
        "pixel_accuracy": found["pixel_accuracy"],
        "all_layers_bytes_per_face": found["bytes_per_face_with_layers"],
        "all_layers_psnr_db": found["psnr_db"],
        "all_layers_pixel_accuracy": found["pixel_accuracy_of_reconstructions"],
    }


def _shipped(bundle: Path) -> dict[str, float | None]:
    """What the bundle saves against each method of the published study, at its accuracy."""
    return {
        f"bytes_against_{saving.label.replace(' ', '_')}_percent": saving.percent
        for saving in savings(bundle, RESULTS)
    }


def _encoding(bundle: Bundle, pixels: NDArray[np.uint8], chunks: Chunks) -> dict[str, float]:
    """Crops to bytes as the edge does it: one face a call of the analysis, eight a chunk."""
    codec, analysis = bundle.codec(), Analysis(bundle)
    few = _first_faces(chunks)
    spent_s = least_s(
        {
            "analysis": lambda: [analysis.symbols([crop]) for crop in pixels],
            "encode": lambda: [codec.encode(chunk) for chunk in few],
        }
    )
    analysis_us = spent_s["analysis"] / len(pixels) * 1e6
    encode_us = spent_s["encode"] / sum(map(len, few)) * 1e6
    return {
        "analysis_us_per_face": analysis_us,
        "encode_us_per_face": encode_us,
        "crop_to_bytes_us_per_face": analysis_us + encode_us,
    }


def _decoding(bundle: Bundle, chunks: Chunks) -> dict[str, float]:
    """Faces a second of each path and how many times plain's, for chunks of eight and of one."""
    readers = PATHS | {"default": PlainReader}
    codecs = {name: bundle.codec(reader=reader) for name, reader in readers.items()}
    codec, few = codecs["plain"], _first_faces(chunks)
    figures: dict[str, float] = {}
    for size, batch in ((CHUNK_FACES, few), (1, [[face] for face in chain.from_iterable(few)])):
        payloads = [codec.encode(chunk) for chunk in batch]
        spent_s = least_s({name: _decoder(codec, payloads) for name, codec in codecs.items()})
        faces = sum(map(len, batch))
        for name, seconds in spent_s.items():
            key = f"decode_{name}_{len(payloads)}_chunks_of_{size}"
            figures[f"{key}_faces_per_s"] = faces / seconds
            figures[f"{key}_times_plain"] = spent_s["plain"] / seconds
    return figures


def _choosing(
    bundle: Bundle, y: NDArray[np.float32], truth: NDArray[np.int64], level: int
) -> dict[str, float]:
    """What the encoder's choice of symbols saves, costs, and does to the answers."""
    scaled = y * bundle.tables.gains[level][:, None, None]
    figures: dict[str, float] = {}
    for strength in STRENGTHS:
        symbols = np.stack([chosen(face, bundle.tables, level, strength) for face in scaled])
        _, payloads = through_the_wire(bundle.codec(), symbols, level)
        answers = classified(bundle, symbols, level).argmax(axis=1)
        name = f"symbol_choice_{strength:g}"
        figures[f"{name}_payload_bytes_per_face"] = sum(map(len, payloads)) / len(symbols)
        figures[f"{name}_accuracy"] = float(np.mean(answers == truth))
    few = scaled[:BATCH_FACES]
    tasks = {
        name: partial(_each_chosen, few, bundle.tables, level, strength)
        for name, strength in (("rounded", 0.0), ("chosen", STRENGTHS[-1]))
    }
    spent_s = least_s(tasks)
    taken_s = spent_s["chosen"] - spent_s["rounded"]
    return figures | {"symbol_choice_us_per_face": taken_s / len(few) * 1e6}


def _each_chosen(y: NDArray[np.float32], tables: CdfTables, level: int, strength: float) -> None:
    for face in y:
        chosen(face, tables, level, strength)


def _classifying(bundle: Bundle, symbols: NDArray[np.int32], level: int) -> float:
    model = ExpressionModel(bundle, RuntimeOptions(provider="cpu"), Limits())
    levels = np.full(len(symbols), level, np.int32)
    return least_s({"": lambda: model.classify(symbols, levels)})[""] / len(symbols) * 1e6


def _first_faces(chunks: Chunks) -> Chunks:
    faces = list(islice(chain.from_iterable(chunks), BATCH_FACES))
    return [faces[start : start + CHUNK_FACES] for start in range(0, len(faces), CHUNK_FACES)]


def _decoder(codec: ChunkCodec, payloads: list[bytes]) -> Callable[[], object]:
    return lambda: codec.decode_chunks(payloads)
