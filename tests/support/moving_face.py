"""A drawn face that moves through a picture: what the edge's tests film instead of people."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from trainer.schematic import schematic_face

Image = NDArray[np.uint8]

VARIANT = 7  # one that detectors are sure of
FACE_PX = 120
# Where schematic_face draws eyes, nose and mouth, as fractions of its side.
LANDMARKS = (
    np.array([[15.5, 20.0], [32.5, 20.0], [24.0, 29.0], [18.0, 38.0], [30.0, 38.0]]) / 48 * FACE_PX
)


@dataclass(frozen=True)
class Scene:
    """A face over a quiet ground. shade tells scenes apart."""

    width: int = 320
    height: int = 240
    shade: int = 90

    def picture(self, x: float, y: float, *more: tuple[float, float]) -> Image:
        """The picture with a face at (x, y), its upper left corner in px, and perhaps others."""
        image = self.empty()
        face = cv2.GaussianBlur(schematic_face(VARIANT, FACE_PX), (0, 0), 1.5)
        for left, top in ((x, y), *more):
            shift = np.array([[1, 0, left], [0, 1, top]], np.float64)
            cv2.warpAffine(
                cv2.merge([face, face, face]),
                shift,
                (self.width, self.height),
                dst=image,
                borderMode=cv2.BORDER_TRANSPARENT,
            )
        return image

    def empty(self) -> Image:
        """The ground alone: a slope of grey."""
        slope = (
            np.linspace(-30, 30, self.width)
            if self.shade < 128
            else np.linspace(30, -30, self.width)
        )
        row = np.clip(self.shade + slope, 0, 255).astype(np.uint8)
        return np.ascontiguousarray(
            np.broadcast_to(row[None, :, None], (self.height, self.width, 3))
        )


def film(path: Path, pictures: list[Image], fps: float = 25.0) -> Path:
    """Write the pictures as an MP4 clip."""
    height, width = pictures[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, (width, height))
    assert writer.isOpened()
    for picture in pictures:
        writer.write(picture)
    writer.release()
    return path


def walk(frames: int) -> list[Image]:
    """A face that walks to the right, 2 px a frame."""
    return [Scene().picture(30 + 2 * index, 50 + index % 3) for index in range(frames)]
