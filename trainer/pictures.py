"""What a bundle's layers draw of labelled faces, in real coded bytes."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mien.bundle import Bundle
from mien.layers import LayersCodec
from trainer.runtime import Network


@dataclass(frozen=True)
class Drawn:
    """The reconstructions, uint8 (N, 1, H, W), with so many layers, and the bytes of all of it."""

    layers: int
    all_layers: bool
    total_bytes: int
    faces: NDArray[np.uint8]


def pictures(
    bundle: Bundle,
    pixels: NDArray[np.uint8],
    symbols: NDArray[np.int32],
    payloads: list[bytes],
    chunk_faces: int,
) -> Iterator[Drawn]:
    """Faces uint8 (N, 1, H, W) as they are drawn by the base alone, then with each layer more.

    symbols, payloads: of the base, at the bundle's default level, chunk_faces of them in each.
    """
    level = np.full(len(pixels), bundle.manifest.latent.default_level, np.int32)
    e = Network(bundle.path("enhancement.onnx"))(pixels, symbols, level)
    codec = bundle.layers()
    enhancement, sizes = _over_the_wire(codec, e, payloads, chunk_faces)
    synthesis = Network(bundle.path("synthesis.onnx"))
    total = sum(map(len, payloads))
    for layers, end in enumerate((0, *codec.ends)):
        total += sizes[layers - 1] if layers else 0
        shown = enhancement.copy()
        shown[:, end:] = 0
        yield Drawn(layers, layers == len(codec.ends), total, synthesis(symbols, level, shown))


def _over_the_wire(
    codec: LayersCodec, e: NDArray[np.float32], payloads: list[bytes], chunk_faces: int
) -> tuple[NDArray[np.int32], list[int]]:
    """What the symbols of enhancements stand for, int32 (N, E, H, W), in half steps, and the bytes
    of each layer."""
    decoded: list[NDArray[np.int32]] = []
    sizes: list[int] = []
    for start, payload in zip(range(0, len(e), chunk_faces), payloads, strict=True):
        latents = list(codec.chosen(e[start : start + chunk_faces]))
        layers = codec.encode(payload, latents)
        read = codec.decode(payload, len(latents), layers)
        decoded += [latent for latent in read if latent is not None]
        sizes = [a + len(b) for a, b in zip(sizes or [0] * len(layers), layers, strict=True)]
    return codec.values(np.stack(decoded)), sizes
