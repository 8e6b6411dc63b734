"""Cameras and streams: a thread reads every frame, and whoever asks gets the newest.

A stale frame is worth least, so frames that nobody asked for in time are dropped and counted.
"""

import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Protocol, Self
from urllib.parse import urlsplit

import cv2
import numpy.typing as npt

from edge_encoder.camera import Frame, Source, VideoFile, colour
from mien.errors import SourceError


class Capture(Protocol):
    """What is used of cv2.VideoCapture."""

    def read(self) -> tuple[bool, npt.NDArray[Any]]:
        """Whether there was a frame, and the frame."""
        ...

    def release(self) -> None:
        """Close the device."""
        ...


class LiveSource:
    """The newest frames of a capture that does not wait.

    read_timeout_s: a read that fails after about this long has timed out, a SourceError; one that
        fails sooner is the end of the stream.
    """

    live = True
    stills = False

    def __init__(
        self,
        name: str,
        capture: Capture,
        read_timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.dropped = 0
        self._capture = capture
        self._read_timeout_s = read_timeout_s
        self._clock = clock
        self._changed = threading.Condition()
        self._newest: Frame | None = None
        self._reader_is_there = False
        self._ended = False
        self._error: SourceError | None = None

    def __enter__(self) -> Self:
        # A daemon, for a read may block for its whole timeout after everyone has left.
        threading.Thread(target=self._read_all, name="camera", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.interrupt()

    def interrupt(self) -> None:
        """From any thread: whoever waits for a frame is told that there are no more."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Frame]:
        self._reader_is_there = True
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._newest is not None or self._ended)
                frame, self._newest = self._newest, None
                error = self._error
            if frame is not None:
                yield frame
            elif error is not None:
                raise error
            else:
                return

    def _read_all(self) -> None:
        start_s = self._clock()
        index = 0
        try:
            while not self._ended:
                asked_s = self._clock()
                read, image = self._capture.read()
                now_s = self._clock()
                if not read:
                    self._error = self._failure(index, now_s - asked_s)
                    return
                self._offer(Frame(index, now_s - start_s, colour(image)))
                index += 1
        finally:
            self._capture.release()
            self.interrupt()

    def _offer(self, frame: Frame) -> None:
        """Keep a frame; when nobody took the one before, that one goes."""
        with self._changed:
            # Frames from before anyone asked are no loss.
            if self._newest is not None and self._reader_is_there:
                self.dropped += 1
            self._newest = frame
            self._changed.notify_all()

    def _failure(self, frames: int, waited_s: float) -> SourceError | None:
        if waited_s >= 0.9 * self._read_timeout_s:
            return SourceError(
                f"{self.name} sent no frame for {waited_s:.1f} s "
                "(--read_timeout_s); is the camera still there?"
            )
        if frames == 0:
            return SourceError(f"{self.name} was opened, but has no frame that can be decoded")
        return None


def open_url(
    url: str, open_timeout_s: float, read_timeout_s: float, *, pace: bool = False
) -> Source:
    """A stream that FFmpeg reads, or a clip behind HTTP, which waits for its reader as files do.

    pace: play such a clip at its own speed. Raises SourceError when it cannot be opened in time.
    """
    try:
        name = without_credentials(url)
    except ValueError as error:
        raise SourceError(f"source is not a URL that can be read: {error}") from error
    start_s = time.monotonic()
    capture = cv2.VideoCapture(
        url,
        cv2.CAP_FFMPEG,
        [
            # Without these a source that has died holds its reader for ever.
            *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, int(open_timeout_s * 1000)),
            *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, int(read_timeout_s * 1000)),
            *(cv2.CAP_PROP_N_THREADS, 1),
        ],
    )
    if not capture.isOpened():
        waited_s = time.monotonic() - start_s
        if waited_s >= 0.9 * open_timeout_s:
            raise SourceError(
                f"{name} did not answer within {open_timeout_s:g} s (--open_timeout_s)"
            )
        raise SourceError(f"{name} cannot be opened: nothing listens there, or it is no video")
    if url.lower().startswith("http") and capture.get(cv2.CAP_PROP_FRAME_COUNT) > 0:
        # It has an end, so it is no camera: read as it comes, it would be over in a moment.
        return VideoFile(name, capture=capture, pace=pace)
    return LiveSource(name, capture, read_timeout_s)


def open_camera(number: int, read_timeout_s: float) -> LiveSource:
    """A camera of this machine. Raises SourceError when there is none of that number."""
    capture = cv2.VideoCapture(number)
    if not capture.isOpened():
        raise SourceError(f"there is no camera {number}, or another program uses it")
    return LiveSource(f"camera {number}", capture, read_timeout_s)


def without_credentials(url: str) -> str:
    """The URL as it may stand in a log."""
    parts = urlsplit(url)
    if not parts.netloc:
        return url
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=host, query="", fragment="").geturl()
