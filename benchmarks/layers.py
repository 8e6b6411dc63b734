"""What enhancement layers cost a face at device and recognizer: processor time in µs."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.paths import PATHS
from benchmarks.timing import least_s
from cloud_recognizer.model import ExpressionModel, RuntimeOptions
from edge_encoder.inference import open_session
from mien.bitstream import Limits
from mien.bundle import Bundle
from mien.holding import quantised
from mien.layers import LayersCodec
from trainer.evaluate import analysed

FACES = 32
PAYLOAD = b"a chunk's payload"


def layering(bundle: Bundle, pixels: NDArray[np.uint8]) -> dict[str, float]:
    """Figures for layers of one face a chunk, as devices make them.

    pixels: uint8 (N, 1, H, W), of which FACES are taken.
    """
    pixels, level = pixels[:FACES], bundle.manifest.latent.default_level
    levels = np.full(len(pixels), level, np.int32)
    y = analysed(bundle, pixels)
    symbols = quantised(y, bundle.tables.gains[level])
    session = open_session(bundle.read("enhancement.onnx"))
    model = ExpressionModel(bundle, RuntimeOptions(provider="cpu", reconstruction=True), Limits())
    codecs = {name: bundle.layers(reader=reader) for name, reader in PATHS.items()}
    codec = codecs["plain"]

    def enhanced(face: int) -> Any:
        one = slice(face, face + 1)
        given = {"face": pixels[one], "symbols": symbols[one], "level": levels[one]}
        return session.run(["e"], given)[0]

    e = [enhanced(face) for face in range(len(pixels))]
    chosen = [codec.chosen(each)[0] for each in e]
    layers = [codec.encode(PAYLOAD, [latent]) for latent in chosen]

    def drawn(face: int) -> Any:
        one = slice(face, face + 1)
        return model.synthesise(symbols[one], levels[one], [chosen[face]])

    tasks: dict[str, Callable[[int], Any]] = {
        "layers_analysis": enhanced,
        "layers_choice": lambda face: codec.chosen(e[face]),
        "layers_encode": lambda face: codec.encode(PAYLOAD, [chosen[face]]),
        "picture": drawn,
    }
    for name, by in codecs.items():
        tasks[f"layers_decode_{name}"] = partial(_decoded, by, layers)
    spent_s = least_s({name: partial(_each, task, len(pixels)) for name, task in tasks.items()})
    return {f"{name}_us_per_face": s / len(pixels) * 1e6 for name, s in spent_s.items()}


def _decoded(codec: LayersCodec, layers: list[list[bytes]], face: int) -> Any:
    return codec.decode(PAYLOAD, 1, layers[face])


def _each(task: Callable[[int], Any], faces: int) -> None:
    for face in range(faces):
        task(face)
