"""One opening of a camera: open it, read it until it fails or is left alone."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from edge_encoder.capture.opening import NEARLY, Capture, OpenCapture
from mien.errors import SourceEndedError, SourceError, SourceStalledError, SourceTimeoutError


@dataclass(frozen=True)
class LiveSettings:
    """How patient one is with a live source, in seconds.

    open_timeout_s, read_timeout_s: what its decoder is asked to keep.
    stall_s: how long a call into the decoder may take whatever the decoder was asked; for opening
        on top of open_timeout_s.
    frozen_s: how long the picture may stay the same to the last bit; 0 for ever.
    give_up_s: how long it may be without a frame before it is an error; None for ever.
    """

    open_timeout_s: float = 10.0
    read_timeout_s: float = 10.0
    stall_s: float = 20.0
    frozen_s: float = 60.0
    give_up_s: float | None = None


class CaptureReader:
    """Reads on a thread of its own, for a call into a decoder can hang and cannot be ended.

    A reader that hangs is left: its thread ends when the call returns, and gives nothing any more.

    on_image: called with every image on the reader's thread; what it raises ends the reader.
    changed: notified when the reader has ended; `failure` then says why.
    """

    def __init__(
        self,
        name: str,
        open_capture: OpenCapture,
        settings: LiveSettings,
        on_image: Callable[[npt.NDArray[Any]], None],
        changed: threading.Condition,
        clock: Callable[[], float],
    ) -> None:
        self._name = name
        self._open_capture = open_capture
        self._settings = settings
        self._on_image = on_image
        self._changed = changed
        self._clock = clock
        self.is_left = False
        self._is_open = False
        self._called_s = clock()
        self.frames = 0
        self.failure: BaseException | None = None
        # A daemon, for a call may block for its whole timeout after everyone has left.
        self._thread = threading.Thread(target=self._run, name="camera", daemon=True)

    def start(self) -> None:
        """Begin to open."""
        self._thread.start()

    def leave(self) -> None:
        """Have no more images, and let the thread end when it can."""
        self.is_left = True

    @property
    def is_alive(self) -> bool:
        """Whether the thread is still there, hanging in a decoder perhaps."""
        return self._thread.is_alive()

    def stall(self) -> SourceStalledError | None:
        """The error that it is, if the decoder has not returned for too long."""
        is_open = self._is_open  # read before the time, as it is written after it
        waited_s = self._clock() - self._called_s
        limit_s = self._settings.stall_s + (0.0 if is_open else self._settings.open_timeout_s)
        if waited_s < limit_s:
            return None
        doing = "gives no frame, and no error," if is_open else "neither opens nor fails"
        return SourceStalledError(f"{self._name} {doing} for {waited_s:.1f} s (--stall_s)")

    def _run(self) -> None:
        try:
            capture = self._open_capture()
            try:
                self._read(capture)
            finally:
                capture.release()
        except BaseException as error:  # a defect must not leave its watcher waiting for ever
            self.failure = error
        with self._changed:
            self._changed.notify_all()

    def _read(self, capture: Capture) -> None:
        self._called_s = self._clock()
        self._is_open = True
        while not self.is_left:
            asked_s = self._called_s = self._clock()
            read, image = capture.read()
            if self.is_left:
                return
            if not read:
                raise self._ending(self._clock() - asked_s)
            self._on_image(image)
            self.frames += 1

    def _ending(self, waited_s: float) -> SourceError:
        if waited_s >= NEARLY * self._settings.read_timeout_s:
            return SourceTimeoutError(
                f"{self._name} sent no frame for {waited_s:.1f} s "
                "(--read_timeout_s); is the camera still there?"
            )
        if self.frames == 0:
            return SourceEndedError(
                f"{self._name} was opened, but has no frame that can be decoded"
            )
        return SourceEndedError(f"{self._name} ended its stream after {self.frames} frames")
