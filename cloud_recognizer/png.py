"""A PNG of one grey picture (ISO/IEC 15948), so that the service needs no imaging library."""

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY_8_BITS = (8, 0, 0, 0, 0)  # depth, colour type, compression, filter method, interlace


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def encode_grey(image: NDArray[np.uint8]) -> bytes:
    """Encode an image, uint8 (H, W), as PNG. Raises ValueError for another shape or type."""
    if image.ndim != 2 or image.dtype != np.uint8:
        raise ValueError(f"expected uint8 (H, W), got {image.dtype} {image.shape}")
    height, width = image.shape
    rows = np.zeros((height, width + 1), np.uint8)  # each row begins with filter type 0, none
    rows[:, 1:] = image
    return (
        _SIGNATURE
        + _chunk(b"IHDR", struct.pack(">II5B", width, height, *_GREY_8_BITS))
        + _chunk(b"IDAT", zlib.compress(rows.tobytes(), 9))
        + _chunk(b"IEND", b"")
    )
