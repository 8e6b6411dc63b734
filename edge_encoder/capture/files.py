"""Video files and photographs: they wait for their reader, so every frame is seen."""

import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self

import cv2

from edge_encoder.capture.frames import Frame, colour
from mien.errors import SourceError

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
# For clips that do not say theirs, and for photographs.
DEFAULT_FPS = 25.0


class _FileSource:
    """What file sources share: they wait, so nothing is lost."""

    live = False
    stills = False

    def __init__(self, name: str) -> None:
        self.name = name
        self.dropped = 0

    def interrupt(self) -> None:
        """Nobody waits for a file for long."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return None


class VideoFile(_FileSource):
    """The frames of a clip. Raises SourceError when it cannot be opened, or not begun again.

    capture: the clip where it is open already, behind a URL for instance.
    rounds: how often it is played, one time after another; 0 for ever.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        capture: cv2.VideoCapture | None = None,
        pace: bool = False,
        rounds: int = 1,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,  # to play a clip at its own speed
    ) -> None:
        super().__init__(str(path))
        if capture is None:
            # One decoder thread: each further one keeps frames of its own in memory.
            capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        self._capture = capture
        if not self._capture.isOpened():
            raise SourceError(f"{path} cannot be read as a video; is it complete, and a video?")
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0.1 <= fps <= 1000 else DEFAULT_FPS
        self._pace, self._clock, self._sleep = pace, clock, sleep
        self._rounds = rounds

    def __iter__(self) -> Iterator[Frame]:
        start_s = self._clock()
        for index, image in enumerate(self._images()):
            t_s = index / self.fps
            if self._pace:
                self._sleep(max(0.0, start_s + t_s - self._clock()))
            yield Frame(index, t_s, colour(image))

    def _images(self) -> Iterator[cv2.typing.MatLike]:
        for played in count():
            if played:
                self._capture.set(cv2.CAP_PROP_POS_FRAMES, 0)
            read, image = self._capture.read()
            if not read:
                fault = "cannot be begun again" if played else "has no frame that can be decoded"
                raise SourceError(f"{self.name} {fault}")
            while read:
                yield image
                read, image = self._capture.read()
            if played + 1 == self._rounds:
                return

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._capture.release()


class ImageFolder(_FileSource):
    """Photographs in the order of their names, `DEFAULT_FPS` of them a second.

    Those that cannot be read are counted in `dropped`. Raises SourceError when all are such.
    """

    stills = True

    def __init__(self, path: Path, images: list[Path]) -> None:
        super().__init__(str(path))
        self._images = images

    def __iter__(self) -> Iterator[Frame]:
        for index, path in enumerate(self._images):
            image = cv2.imread(str(path), cv2.IMREAD_COLOR)
            if image is None:
                self.dropped += 1
                continue
            yield Frame(index, index / DEFAULT_FPS, colour(image))
        if self.dropped == len(self._images):
            raise SourceError(f"none of the {len(self._images)} images of {self.name} can be read")


def images_in(folder: Path) -> list[Path]:
    """The photographs of a folder, by name. Raises SourceError where there are none."""
    images = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
    )
    if not images:
        endings = ", ".join(sorted(IMAGE_SUFFIXES))
        raise SourceError(f"folder {folder} holds no image ({endings})")
    return images
