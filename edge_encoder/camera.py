"""Where frames come from: a video file, photographs, a camera, or a stream by URL.

Files wait for their reader, so every frame is seen, and end at their end; cameras and streams
(`live_camera`) do not wait, so the newest frame is seen, and are opened again when they fail.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

import cv2
import numpy as np
import numpy.typing as npt

from edge_encoder.capture.health import Watcher
from edge_encoder.capture.opening import capture_device, capture_url, is_clip, without_credentials
from edge_encoder.capture.reader import LiveSettings
from edge_encoder.detector.base import Image
from mien.errors import SourceError, SourceOpenError

if TYPE_CHECKING:
    from edge_encoder.capture.live_camera import LiveSource

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
URL_SCHEMES = frozenset({"http", "https", "rtmp", "rtsp", "rtsps", "srt", "tcp", "udp"})
# For clips that do not say theirs, and for photographs.
DEFAULT_FPS = 25.0


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a source.

    index: position in the source, from 0; frames that were not read count.
    t_s: seconds since the source's start. image: uint8 (H, W, 3), blue, green, red.
    """

    index: int
    t_s: float
    image: Image


@dataclass(frozen=True)
class Gap:
    """A live source was lost here; what comes next may show another scene."""


class Source(Protocol):
    """A context manager over frames; iterating raises SourceError when reading fails.

    A live source that fails is opened again, and gives a `Gap` for the time between.
    """

    @property
    def name(self) -> str:
        """The file, folder, camera or URL, without credentials."""
        ...

    @property
    def live(self) -> bool:
        """Whether frames that nobody reads in time are lost."""
        ...

    @property
    def stills(self) -> bool:
        """Whether a frame says little about where faces are in the next one."""
        ...

    @property
    def dropped(self) -> int:
        """Frames lost, or that could not be read, so far."""
        ...

    def __iter__(self) -> Iterator[Frame | Gap]: ...

    def interrupt(self) -> None:
        """From any thread: whoever waits for a frame is told that there are no more."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


def open_source(
    source: str,
    live: LiveSettings = LiveSettings(),  # noqa: B008  # frozen
    *,
    pace: bool = False,
    watcher: Watcher | None = None,
) -> Source:
    """A video file, an image, a folder of images, a camera's number, or a URL.

    live: for cameras and streams, which need not be there yet. A clip behind HTTP is a file: it
    waits for its reader and ends at its end.
    pace: play video files at their own speed rather than as fast as they are read.
    Raises SourceError that says what is wrong with the source.
    """
    path = Path(source)
    scheme, separator, _ = source.partition("://")
    if separator and scheme.lower() in URL_SCHEMES:
        return _open_url(source, live, watcher, pace=pace)
    if path.is_dir():
        return ImageFolder(path, _images_in(path))
    if path.is_file():
        if path.suffix.lower() in IMAGE_SUFFIXES:
            return ImageFolder(path, [path])
        return VideoFile(path, pace=pace)
    if source.isdecimal():
        number = int(source)
        return _live(f"camera {number}", lambda: capture_device(number), live, watcher)
    raise SourceError(
        f"source {source!r} is no file, folder, camera number or URL "
        f"({', '.join(sorted(URL_SCHEMES))})"
    )


def frames_of(source: Source) -> Iterator[Frame]:
    """The frames alone, for those who do not mind gaps."""
    return (item for item in source if isinstance(item, Frame))


def _open_url(url: str, live: LiveSettings, watcher: Watcher | None, *, pace: bool) -> Source:
    name = without_credentials(url)
    opened: list[cv2.VideoCapture] = []
    if url.lower().startswith("http"):
        # A clip or a camera? Only opening it tells; what does not answer is taken for a camera.
        try:
            capture = capture_url(url, live.open_timeout_s, live.read_timeout_s)
        except SourceOpenError:
            pass
        else:
            if is_clip(url, capture):
                return VideoFile(name, capture=capture, pace=pace)
            opened.append(capture)

    def open_capture() -> cv2.VideoCapture:
        if opened:
            return opened.pop()
        capture = capture_url(url, live.open_timeout_s, live.read_timeout_s)
        if is_clip(url, capture):
            # Read as it comes, it would be over in a moment, and then begin again, for ever.
            raise SourceError(
                f"{name} is a clip with an end, but was not there when the run began; start again"
            )
        return capture

    return _live(name, open_capture, live, watcher)


def _live(
    name: str,
    open_capture: Callable[[], cv2.VideoCapture],
    live: LiveSettings,
    watcher: Watcher | None,
) -> "LiveSource":
    from edge_encoder.capture.live_camera import LiveSource

    return LiveSource(name, open_capture, live, watcher=watcher)


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
    """The frames of a clip. Raises SourceError when it cannot be opened.

    capture: the clip where it is open already, behind a URL for instance.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        capture: cv2.VideoCapture | None = None,
        pace: bool = False,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
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

    def __iter__(self) -> Iterator[Frame]:
        start_s = self._clock()
        index = 0
        while True:
            read, image = self._capture.read()
            if not read:
                break
            t_s = index / self.fps
            if self._pace:
                self._sleep(max(0.0, start_s + t_s - self._clock()))
            yield Frame(index, t_s, colour(image))
            index += 1
        if index == 0:
            raise SourceError(f"{self.name} has no frame that can be decoded")

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


def colour(image: npt.NDArray[Any]) -> Image:
    """As uint8 (H, W, 3), whatever the decoder gave."""
    image = np.asarray(image, np.uint8)
    if image.ndim == 2:
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR), np.uint8)
    return image


def _images_in(folder: Path) -> list[Path]:
    images = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
    )
    if not images:
        endings = ", ".join(sorted(IMAGE_SUFFIXES))
        raise SourceError(f"folder {folder} holds no image ({endings})")
    return images
