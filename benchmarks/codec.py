"""What coding costs: bytes beyond the tables' ideal, and microseconds a face.

WebP at its lowest quality on the same faces in the same run, as a yardstick.
"""

import argparse
import time
from typing import Any

import cv2
import numpy as np

from mien.bitstream import HEADER_BYTES
from mien.bundle import load_bundle
from trainer.data.layout import read_held_out
from trainer.evaluate import chunks_of
from trainer.runtime import Network, symbols_of

FACES = 800


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Overheads, sizes and times over chunks of eight held-out faces."""
    bundle = load_bundle(options.bundle)
    codec = bundle.codec()
    faces, split = read_held_out(options.data)
    pixels = faces.pixels[: options.faces or FACES]
    symbols = symbols_of(Network(bundle.path("analysis.onnx"))(pixels))
    chunks = list(chunks_of(symbols))
    started = time.perf_counter()
    payloads = [codec.encode(chunk) for chunk in chunks]
    encoded = time.perf_counter()
    for payload in payloads:
        codec.decode(payload)
    decoded = time.perf_counter()
    overheads = [
        len(payload) - HEADER_BYTES - codec.ideal_bits(chunk) / 8
        for payload, chunk in zip(payloads, chunks, strict=True)
    ]
    webp = [cv2.imencode(".webp", face, [cv2.IMWRITE_WEBP_QUALITY, 1])[1] for face in pixels[:, 0]]
    return {
        "split": split,
        "faces": len(symbols),
        "header_bytes_a_chunk": HEADER_BYTES,
        "overhead_bytes_a_chunk_mean": float(np.mean(overheads)),
        "overhead_bytes_a_chunk_max": float(np.max(overheads)),
        "payload_bytes_per_face": sum(map(len, payloads)) / len(symbols),
        "webp_quality_1_bytes_per_face": float(np.mean([len(file) for file in webp])),
        "encode_us_per_face": (encoded - started) / len(symbols) * 1e6,
        "decode_us_per_face": (decoded - encoded) / len(symbols) * 1e6,
    }
