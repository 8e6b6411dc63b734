"""Reading pictures as faces of one size."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainer.data.errors import DatasetError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"})


@dataclass(frozen=True)
class FaceFormat:
    """What every face of a set is made into.

    size: height and width in pixels. channels: 1 for grey, 3 for colour (red, green, blue).
    """

    size: int = 48
    channels: int = 1

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise ValueError(f"channels: expected 1 (grey) or 3 (colour), got {self.channels}")
        if self.size < 8:
            raise ValueError(f"size: expected at least 8 pixels, got {self.size}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.channels, self.size, self.size


GREY_48 = FaceFormat()


@dataclass(frozen=True)
class Box:
    """Where a face is in its picture, pixels; it may reach beyond the edges."""

    left: int
    top: int
    width: int
    height: int


def read_picture(path: Path, face_format: FaceFormat, box: Box | None = None) -> NDArray[np.uint8]:
    """The face in a picture, uint8 (C, H, W): a square about the box, or the centre square.

    Raises DatasetError, naming the file, when it is missing or is not a picture.
    """
    try:
        with Image.open(path) as picture:
            return fitted(picture, face_format, box)
    except FileNotFoundError as error:
        raise DatasetError(f"{path} is missing") from error
    # A damaged file is an OSError to most of Pillow's decoders, and other things to some.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DatasetError(f"{path} cannot be read as a picture: {error}") from error


def fitted(
    picture: Image.Image, face_format: FaceFormat, box: Box | None = None
) -> NDArray[np.uint8]:
    """A square of the picture as uint8 (C, H, W), shrunk by area or enlarged bicubically.

    The square has the box's longer side and centre, as far as the picture reaches.
    """
    size = (face_format.size, face_format.size)
    width, height = picture.size
    box = box or Box(0, 0, width, height)
    side = min(max(box.width, box.height), width, height)
    left = min(max(box.left + (box.width - side) // 2, 0), width - side)
    top = min(max(box.top + (box.height - side) // 2, 0), height - side)
    square = picture.crop((left, top, left + side, top + side))
    face = square.convert("L" if face_format.channels == 1 else "RGB")
    if face.size != size:
        smaller = side > face_format.size
        face = face.resize(size, Image.Resampling.BOX if smaller else Image.Resampling.BICUBIC)
    pixels = np.asarray(face, dtype=np.uint8)
    return np.ascontiguousarray(np.atleast_3d(pixels).transpose(2, 0, 1))
