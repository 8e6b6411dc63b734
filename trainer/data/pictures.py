"""Faces that stay in their files until they are looked at.

AffectNet's 290,000 faces of 224×224 in colour are 43 GB decoded and 5 GB in their files.
"""

import functools
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, SupportsIndex, TypeVar

import numpy as np
from numpy.typing import NDArray

from trainer.data.errors import DatasetError
from trainer.data.images import Box, FaceFormat, read_picture

T = TypeVar("T")
# Handed to the threads at a time: what waits there is in memory.
QUEUED_PICTURES = 256
Chosen = slice | NDArray[Any] | Sequence[int] | SupportsIndex


@dataclass(frozen=True)
class Picture:
    """One face of a dataset: a file, and the face's place in it unless it fills the picture."""

    path: Path
    box: Box | None = None


class PictureFiles:
    """Pictures that are indexed as an array uint8 (N, C, H, W) and read at that moment.

    Raises DatasetError, naming the file, when one is missing (at once) or damaged (when read).
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, pictures: Sequence[Picture], face_format: FaceFormat) -> None:
        missing = [picture.path for picture in pictures if not picture.path.is_file()]
        if missing:
            raise DatasetError(f"{missing[0]} is missing, and {len(missing) - 1} more pictures")
        self._pictures, self._format = tuple(pictures), face_format

    def __len__(self) -> int:
        return len(self._pictures)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, C, H, W)."""
        return len(self), *self._format.shape

    @property
    def nbytes(self) -> int:
        """What all faces would take in memory, bytes."""
        return int(np.prod(self.shape, dtype=np.int64))

    def __getitem__(self, chosen: Chosen) -> NDArray[np.uint8]:
        indices = np.arange(len(self))[chosen]
        if indices.ndim == 0:
            return self._read(self._pictures[int(indices)])
        faces = np.empty((len(indices), *self._format.shape), np.uint8)
        for place, face in enumerate(_each(self._read, self._at(indices))):
            faces[place] = face
        return faces

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self[:].astype(dtype or np.uint8, copy=False)

    def subset(self, keep: NDArray[np.bool_]) -> "PictureFiles":
        """The pictures where keep is true, still unread."""
        kept = PictureFiles((), self._format)
        kept._pictures = tuple(self._at(np.flatnonzero(keep)))
        return kept

    def digests(self) -> list[bytes]:
        """SHA-256 of each picture's file and box: copies of a file are found without decoding."""
        return list(_each(_digest, self._pictures))

    def _at(self, indices: NDArray[Any]) -> list[Picture]:
        return [self._pictures[index] for index in indices.tolist()]

    def _read(self, picture: Picture) -> NDArray[np.uint8]:
        return read_picture(picture.path, self._format, picture.box)


def _digest(picture: Picture) -> bytes:
    return hashlib.sha256(picture.path.read_bytes() + repr(picture.box).encode()).digest()


def _each(function: Callable[[Picture], T], pictures: Sequence[Picture]) -> Iterator[T]:
    for start in range(0, len(pictures), QUEUED_PICTURES):
        yield from _readers().map(function, pictures[start : start + QUEUED_PICTURES])


@functools.cache
def _readers() -> ThreadPoolExecutor:
    # Pillow decodes without the interpreter's lock; more threads than this wait for the disk.
    return ThreadPoolExecutor(min(8, os.cpu_count() or 1), "pictures")
