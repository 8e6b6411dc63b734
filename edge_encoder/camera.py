"""Where frames come from: a video file, photographs, a camera, or a stream by URL.

Files (`capture.files`) wait for their reader, so every frame is seen, and end at their end; cameras
and streams (`capture.live_camera`) do not wait, so the newest frame is seen, and are opened again
when they fail.
"""

from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import cv2

from edge_encoder.capture.files import IMAGE_SUFFIXES, ImageFolder, VideoFile, images_in
from edge_encoder.capture.frames import Source
from edge_encoder.capture.health import Watcher
from edge_encoder.capture.live_camera import LiveSource
from edge_encoder.capture.opening import capture_device, capture_url, is_clip
from edge_encoder.capture.reader import LiveSettings
from mien.errors import SourceError, SourceOpenError
from mien.urls import without_credentials

URL_SCHEMES = frozenset({"http", "https", "rtmp", "rtsp", "rtsps", "srt", "tcp", "udp"})


def open_source(
    source: str,
    live: LiveSettings = LiveSettings(),  # noqa: B008  # frozen
    *,
    pace: bool = False,
    rounds: int = 1,
    watcher: Watcher | None = None,
) -> Source:
    """A video file, an image, a folder of images, a camera's number, or a URL.

    live: for cameras and streams, which need not be there yet. A clip behind HTTP is a file: it
    waits for its reader and ends at its end.
    pace: play video files at their own speed rather than as fast as they are read.
    rounds: how often a video file is played; 0 for ever.
    Raises SourceError that says what is wrong with the source.
    """
    path = Path(source)
    scheme, separator, _ = source.partition("://")
    if separator and scheme.lower() in URL_SCHEMES:
        return _open_url(source, live, watcher, pace=pace, rounds=rounds)
    if path.is_dir():
        return ImageFolder(path, images_in(path))
    if path.is_file():
        if path.suffix.lower() in IMAGE_SUFFIXES:
            return ImageFolder(path, [path])
        return VideoFile(path, pace=pace, rounds=rounds)
    if source.isdecimal():
        number = int(source)
        return _live(f"camera {number}", lambda: capture_device(number), live, watcher)
    raise SourceError(
        f"source {without_credentials(source)!r} is no file, folder, camera number or URL "
        f"({', '.join(sorted(URL_SCHEMES))})"
    )


def _open_url(
    url: str, live: LiveSettings, watcher: Watcher | None, *, pace: bool, rounds: int
) -> Source:
    try:
        urlsplit(url)
    except ValueError:
        # Its text is left out, for it may show a part of the password.
        raise SourceError("source is not a URL that can be read") from None
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
                return VideoFile(name, capture=capture, pace=pace, rounds=rounds)
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
    return LiveSource(name, open_capture, live, watcher=watcher)
