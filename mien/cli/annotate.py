"""annotated.mp4: the clip again, with each face's box, track and expression drawn into it.

The video is MPEG-4 part 2 in an MP4 file, which is what OpenCV's wheel can write everywhere.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mien.cli.palette import rgb
from mien.cli.results import FaceResult
from mien.errors import MienError, SourceError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Image = NDArray[Any]

# Small clips are enlarged, or nobody could read the labels.
_READABLE_WIDTH = 704
_DEFAULT_FPS = 25.0
_WHITE = (255, 255, 255)
_DARK = (32, 32, 32)


class VideoError(MienError):
    """The annotated video cannot be written."""

    code = "video"


class Picture(Protocol):
    """A frame of a source, as `edge_encoder.camera` reads it."""

    @property
    def index(self) -> int:
        """Position in the source, from 0."""

    @property
    def t_s(self) -> float:
        """Seconds since the source's start."""

    @property
    def image(self) -> Image:
        """uint8 (height, width, 3), blue, green, red."""


def annotate(
    pictures: Iterable[Picture],
    target: Path,
    faces: Sequence[FaceResult],
    fps: float | None = None,
) -> int:
    """Write the annotated video and return its number of frames.

    fps: frames a second; by default as the pictures' times have it.
    Raises SourceError when there is no picture, VideoError when none can be written.
    """
    by_frame: dict[int, list[FaceResult]] = defaultdict(list)
    for face in faces:
        by_frame[face.frame].append(face)
    remaining = iter(pictures)
    start = list(islice(remaining, 2))
    if not start:
        raise SourceError("the source has no frame that can be read")
    video = _Video(target, start[0].image, fps or frame_rate(start))
    try:
        for picture in chain(start, remaining):
            video.write(picture.image, by_frame.get(picture.index, ()))
    finally:
        video.close()
    return video.frames


def frame_rate(start: Sequence[Picture]) -> float:
    """Frames a second by the times of the first two pictures, between 1 and 120."""
    if len(start) < 2 or start[1].t_s <= start[0].t_s:
        return _DEFAULT_FPS
    return min(max(1 / (start[1].t_s - start[0].t_s), 1.0), 120.0)


class _Video:
    """Scales frames to a readable, even size, draws the faces and encodes."""

    def __init__(self, target: Path, first: Image, fps: float) -> None:
        import cv2

        height, width = first.shape[:2]
        scale = max(1.0, _READABLE_WIDTH / width)
        # Chroma is subsampled: encoders want even sides.
        self._size = (round(width * scale / 2) * 2, round(height * scale / 2) * 2)
        codec = cv2.VideoWriter.fourcc(*"mp4v")
        self._writer = cv2.VideoWriter(str(target), codec, fps, self._size)
        if not self._writer.isOpened():
            raise VideoError(f"OpenCV cannot write a video to {target}")
        self.frames = 0

    def write(self, image: Image, faces: Iterable[FaceResult]) -> None:
        import cv2

        width, height = self._size
        scale = min(width / image.shape[1], height / image.shape[0])
        enlarged = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        # Photographs of a folder differ in size: what is left over stays black.
        canvas = cv2.copyMakeBorder(
            enlarged[:height, :width],
            0,
            max(height - enlarged.shape[0], 0),
            0,
            max(width - enlarged.shape[1], 0),
            cv2.BORDER_CONSTANT,
        )
        for face in faces:
            draw_face(canvas, face, scale)
        self._writer.write(canvas)
        self.frames += 1

    def close(self) -> None:
        self._writer.release()


def draw_face(canvas: Image, face: FaceResult, scale: float) -> None:
    """Draw box, track id, expression and a bar as long as the probability, in place.

    scale: canvas pixels for one of the frame that the box is in.
    """
    import cv2

    red, green, blue = rgb(face.expression)
    ink = (blue, green, red)
    x, y, width, height = (round(value * scale) for value in face.box)
    unit = max(1.0, canvas.shape[1] / 1000)  # letters grow with the picture
    line = round(2 * unit)
    cv2.rectangle(canvas, (x, y), (x + width, y + height), ink, line, cv2.LINE_AA)
    text = f"{face.track_id}  {face.expression} {face.probability:.0%}"
    font, size, weight = cv2.FONT_HERSHEY_SIMPLEX, 0.6 * unit, round(unit)
    (text_width, text_height), _ = cv2.getTextSize(text, font, size, weight)
    margin = round(6 * unit)
    plate_width = max(text_width + 2 * margin, round(180 * unit))
    plate_height = text_height + 3 * margin
    left = min(max(x, 0), max(canvas.shape[1] - plate_width, 0))
    # Above the box, or inside it where the box touches the upper edge.
    above = y - plate_height - 2 * line
    top = above if above >= 0 else max(y, 0)
    bottom = top + plate_height
    cv2.rectangle(canvas, (left, top), (left + plate_width, bottom), _DARK, -1)
    baseline = (left + margin, top + text_height + margin)
    cv2.putText(canvas, text, baseline, font, size, _WHITE, weight, cv2.LINE_AA)
    bar_end = left + round(plate_width * face.probability)
    cv2.rectangle(canvas, (left, bottom - margin), (bar_end, bottom), ink, -1)
