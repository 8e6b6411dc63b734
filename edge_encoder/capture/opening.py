"""Opening what OpenCV reads cameras and streams with, never without time limits."""

import time
from collections.abc import Callable
from typing import Any, Final, Protocol

import cv2
import numpy.typing as npt

from mien.errors import SourceOpenError
from mien.urls import without_credentials

# A read that failed after nearly its whole limit has timed out; clocks differ a little.
NEARLY: Final = 0.9


class Capture(Protocol):
    """What is used of cv2.VideoCapture."""

    def read(self) -> tuple[bool, npt.NDArray[Any]]:
        """Whether there was a frame, and the frame."""
        ...

    def release(self) -> None:
        """Close the device."""
        ...


# Opens a camera once more. Raises SourceLostError where that may work later, else SourceError.
OpenCapture = Callable[[], Capture]


def capture_url(url: str, open_timeout_s: float, read_timeout_s: float) -> cv2.VideoCapture:
    """A stream that FFmpeg reads. Raises SourceOpenError when it cannot be opened in time."""
    name = without_credentials(url)
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
        if time.monotonic() - start_s >= NEARLY * open_timeout_s:
            raise SourceOpenError(
                f"{name} did not answer within {open_timeout_s:g} s (--open_timeout_s)"
            )
        raise SourceOpenError(f"{name} cannot be opened: nothing listens there, or it is no video")
    return capture


def capture_device(number: int) -> cv2.VideoCapture:
    """A camera of this machine. Raises SourceOpenError when there is none of that number."""
    capture = cv2.VideoCapture(number)
    if not capture.isOpened():
        raise SourceOpenError(f"there is no camera {number}, or another program uses it")
    return capture


def is_clip(url: str, capture: cv2.VideoCapture) -> bool:
    """Whether what was opened has an end, so that it is no camera."""
    return url.lower().startswith("http") and capture.get(cv2.CAP_PROP_FRAME_COUNT) > 0
