"""Tracks on clips: what a face costs, and how often holding changes the name that is answered.

The same faces coded as a device does and each alone, by rounding: `agreement` is how many keep
their top-1 expression. `--clip` is given once; figures at the clip's own rate in chunks of eight,
and at ten faces a second in chunks of two seconds.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import cv2
import numpy as np

from edge_encoder.detector import open_detector
from edge_encoder.faces import FaceEncoder
from edge_encoder.steadying import steadied
from mien.bitstream import HEADER_BYTES, EncodedFace
from mien.bundle import ALL_FILES, Bundle, load_bundle
from trainer.runtime import Network

SLOW_MS = 100
RATES = {"every_frame": (0, 8), "ten_a_second": (SLOW_MS, 20)}
"""By name the least time between two faces of a track, ms, and the faces of a chunk."""


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Bytes and agreement of a clip's faces at both rates."""
    bundle = load_bundle(options.bundle, ALL_FILES)
    figures: dict[str, Any] = {}
    for name, (period_ms, chunk_faces) in RATES.items():
        faces = list(_faces(bundle, str(options.clip), period_ms))
        if not faces:
            raise ValueError(f"no face in {options.clip}")
        for figure, value in _figures(bundle, faces, chunk_faces).items():
            figures[f"{name}_{figure}"] = value
    return figures


def _faces(bundle: Bundle, clip: str, period_ms: int) -> Iterator[EncodedFace]:
    encoder = FaceEncoder(open_detector(), bundle)
    capture = cv2.VideoCapture(clip)
    rate, index = capture.get(cv2.CAP_PROP_FPS) or 25.0, 0
    # A frame that comes a little early is in time; a camera's rate is not a multiple of ours.
    encoder.period_ms = max(period_ms - round(500 / rate), 0)
    while (read := capture.read())[0]:
        yield from encoder.encode(read[1], round(index / rate * 1000))
        index += 1


def _figures(bundle: Bundle, faces: list[EncodedFace], chunk_faces: int) -> dict[str, float]:
    codec, tables = bundle.codec(), bundle.tables
    payload_bytes = side_bits = 0.0
    coded: list[EncodedFace] = []
    for start in range(0, len(faces), chunk_faces):
        chunk = steadied(faces[start : start + chunk_faces], tables)
        payload = codec.encode(chunk)
        coded += codec.decode(payload)
        payload_bytes += len(payload)
        side_bits += _side_bits(bundle, chunk)
    classify = Network(bundle.path("classifier.onnx"))
    names = [classify(np.stack([f.symbols for f in group])).argmax(1) for group in (faces, coded)]
    seconds = (faces[-1].time_ms - faces[0].time_ms) / 1000 or 1.0
    return {
        "faces": len(faces),
        "payload_bytes_per_face": payload_bytes / len(faces),
        "payload_kbit_per_s": payload_bytes * 8 / 1000 / seconds * (len(faces) - 1) / len(faces),
        "header_bytes_per_face": HEADER_BYTES * -(-len(faces) // chunk_faces) / len(faces),
        "side_bytes_per_face": side_bits / 8 / len(faces),
        "agreement": float(np.mean(names[0] == names[1])),
    }


def _side_bits(bundle: Bundle, chunk: list[EncodedFace]) -> float:
    """Time, track and box: what the chunk would cost if no latent ever changed."""
    still = [replace(face, symbols=chunk[0].symbols) for face in chunk]
    tracks = len({face.track_id for face in chunk})
    return bundle.codec().ideal_bits(still) - tracks * bundle.tables.ideal_bits(chunk[0].symbols)
