"""Reading and writing the clips of the tests."""

from pathlib import Path
from typing import Any

import cv2


def frames_of(video: Path) -> list[Any]:
    """Every frame, uint8 (H, W, 3)."""
    capture = cv2.VideoCapture(str(video))
    images = []
    while True:
        more, image = capture.read()
        if not more:
            return images
        images.append(image)


def write_video(path: Path, images: list[Any]) -> None:
    """Frames of one size, 25 a second."""
    height, width = images[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, (width, height))
    for image in images:
        writer.write(image)
    writer.release()
