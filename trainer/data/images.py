"""Reading pictures."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"})


def read_grey(path: Path, size: int) -> NDArray[np.uint8]:
    """A picture as grey uint8 (size, size), its centre square resized by area."""
    with Image.open(path) as picture:
        grey = picture.convert("L")
        if grey.size != (size, size):
            side = min(grey.size)
            left, top = (grey.width - side) // 2, (grey.height - side) // 2
            grey = grey.resize(
                (size, size), Image.Resampling.BOX, box=(left, top, left + side, top + side)
            )
        return np.asarray(grey, dtype=np.uint8)
