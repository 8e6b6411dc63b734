"""Image codecs that anybody can install, at their least and without container, on the same faces.

Below their smallest files they have nothing to say; there the bundle's layers are held against
these. What reads the decoded faces is the pixel classifier, which saw neither.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien.bundle import Bundle
from trainer.baselines.coding import code_faces
from trainer.baselines.image_codecs import IMAGE_CODECS, ImageCodec
from trainer.evaluate import PIXEL_FILE
from trainer.figures import psnr_db
from trainer.runtime import Network

RATES = 3
"""Of each codec's qualities from the lowest on."""


def rivals(
    bundle: Bundle, pixels: NDArray[np.uint8], truth: NDArray[np.int64], bytes_a_face: float
) -> dict[str, Any]:
    """Of each image codec bytes, PSNR and accuracy at its smallest, and PSNR at bytes_a_face.

    pixels: uint8 (N, 1, H, W). truth: int64 (N,). A codec that never gets so small has no PSNR
    there.
    """
    pixel = Network(bundle.path(PIXEL_FILE))
    figures: dict[str, Any] = {}
    for name, codec in IMAGE_CODECS.items():
        coded = [_coded(codec, pixels, quality) for quality in codec.qualities[:RATES]]
        sizes = [size for size, _ in coded]
        psnrs = [float(psnr_db(pixels, decoded).mean()) for _, decoded in coded]
        read = pixel(coded[0][1]).argmax(axis=1)
        figures |= {
            f"{name}_smallest_bytes_per_face": sizes[0],
            f"{name}_smallest_psnr_db": psnrs[0],
            f"{name}_smallest_accuracy": float(np.mean(read == truth)),
        }
        if sizes[0] <= bytes_a_face:
            there = np.interp(np.log(bytes_a_face), np.log(sizes), psnrs)
            figures[f"{name}_psnr_db_at_all_layers_bytes"] = float(there)
    return figures


def _coded(
    codec: ImageCodec, pixels: NDArray[np.uint8], quality: int
) -> tuple[float, NDArray[np.uint8]]:
    """The mean of the files' bytes without container, and the decoded faces."""
    decoded, sizes = code_faces(codec, pixels, quality)
    # The same in every file of one codec.
    container = codec.container_bytes(codec.encode(pixels[0], quality))
    return float(sizes.mean()) - container, decoded
