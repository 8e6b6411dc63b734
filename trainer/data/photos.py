"""Crops of photographs, for codecs that are to know pictures in general."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainer.data.errors import DatasetError
from trainer.data.images import IMAGE_SUFFIXES

# A crop shows a fifth to all of a photograph's shorter side: textures and whole things alike.
SMALLEST_SHARE = 0.2


@dataclass(frozen=True)
class CropPixels:
    """Crops cut when they are asked for; crop i is always the same.

    photos: decoded. count: how many crops there are. size, channels: of a crop.
    """

    photos: tuple[Image.Image, ...]
    count: int
    size: int
    channels: int
    seed: int

    def __getitem__(self, chosen: NDArray[np.int64]) -> NDArray[np.uint8]:
        """uint8 (len(chosen), channels, size, size)."""
        return np.stack([self._cut(int(index)) for index in chosen])

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """As numpy's."""
        return self.count, self.channels, self.size, self.size

    def _cut(self, index: int) -> NDArray[np.uint8]:
        rng = np.random.default_rng((self.seed, index))
        photo = self.photos[rng.integers(len(self.photos))]
        shorter = min(photo.size)
        side = max(self.size, int(shorter * rng.uniform(SMALLEST_SHARE, 1)))
        side = min(side, shorter)
        left = int(rng.integers(photo.width - side + 1))
        top = int(rng.integers(photo.height - side + 1))
        crop = photo.resize(
            (self.size, self.size),
            Image.Resampling.BICUBIC,
            box=(left, top, left + side, top + side),
        )
        pixels = np.asarray(crop, dtype=np.uint8).reshape(self.size, self.size, self.channels)
        if rng.random() < 0.5:
            pixels = pixels[:, ::-1]
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))


@dataclass(frozen=True)
class PhotoCrops:
    """Pictures without labels, as the training loop takes them."""

    pixels: CropPixels

    def __len__(self) -> int:
        return self.pixels.count

    @property
    def votes(self) -> NDArray[np.float32]:
        """float32 (N, 0): nobody voted on a photograph."""
        return np.zeros((len(self), 0), dtype=np.float32)

    @property
    def majority(self) -> NDArray[np.int64]:
        """int64 (N,), all 0: there is nothing to tell apart."""
        return np.zeros(len(self), dtype=np.int64)


def read_photos(folder: Path, crops: int, size: int, channels: int, seed: int) -> PhotoCrops:
    """So many crops of all photographs below folder.

    Raises DatasetError where there is none.
    """
    mode = "L" if channels == 1 else "RGB"
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    photos = []
    for path in paths:
        with Image.open(path) as photo:
            photos.append(photo.convert(mode))
    if not photos:
        raise DatasetError(f"{folder} holds no photograph ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return PhotoCrops(CropPixels(tuple(photos), crops, size, channels, seed))
