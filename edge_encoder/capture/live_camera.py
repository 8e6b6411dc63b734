"""Cameras and streams: every frame is read, whoever asks gets the newest, failures are overcome.

    CaptureReader ── images ──▶ newest frame ──▶ who iterates
         ▲ opened anew after a jittered wait; left when its decoder hangs
         └── the watching thread

A stale frame is worth least, so frames that nobody asked for in time are dropped and counted.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Final, Self

import numpy.typing as npt

from edge_encoder.capture.frames import Frame, Gap, colour
from edge_encoder.capture.frozen_picture import FrozenPicture
from edge_encoder.capture.health import CameraChange, CameraHealth, Watcher
from edge_encoder.capture.opening import OpenCapture
from edge_encoder.capture.reader import CaptureReader, LiveSettings
from mien.backoff import Backoff
from mien.errors import SourceError, SourceFrozenError, SourceLostError

_log = logging.getLogger(__name__)

# A camera that delivered for so long is back for good: the next failure is reopened soon.
STEADY_S: Final = 10.0
FIRST_REOPEN_S: Final = 0.5
LONGEST_REOPEN_S: Final = 30.0
# Decoders that hang keep their memory; beyond these only a new process helps.
MAX_HANGING: Final = 2
# How often the watching thread looks at the clock.
TICK_S: Final = 0.25


class LiveSource:
    """The newest frames of a camera that is opened again whenever it fails.

    Iterating gives a `Gap` where the camera was lost, and raises SourceError where opening it
    again is of no use: after `give_up_s`, or when too many decoders hang.
    """

    live = True
    stills = False

    def __init__(
        self,
        name: str,
        open_capture: OpenCapture,
        settings: LiveSettings,
        *,
        watcher: Watcher | None = None,
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.monotonic,
        tick_s: float = TICK_S,
    ) -> None:
        self.name = name
        self.dropped = 0
        self._open_capture = open_capture
        self._settings = settings
        self._watcher = watcher or Watcher(CameraHealth(clock=clock))
        self._backoff = backoff or Backoff(FIRST_REOPEN_S, LONGEST_REOPEN_S)
        self._clock = clock
        self._tick_s = tick_s
        self._frozen = FrozenPicture(settings.frozen_s)
        self._hanging: list[CaptureReader] = []
        self._changed = threading.Condition()
        self._newest: Frame | None = None
        self._newest_stretch = 0
        self._stretch = 0  # of frames between two losses; the running one, or the next
        self._index = 0
        self._start_s = self._frame_s = self._first_frame_s = clock()
        self._reader_is_there = False
        self._ended = False
        self._error: SourceError | None = None

    def __enter__(self) -> Self:
        self._start_s = self._frame_s = self._clock()
        threading.Thread(target=self._watch, name="camera watch", daemon=True).start()
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

    def __iter__(self) -> Iterator[Frame | Gap]:
        self._reader_is_there = True
        stretch = 0
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._newest or self._stretch != stretch or self._ended  # noqa: B023
                )
                frame = self._newest
                if frame is not None and self._newest_stretch == stretch:
                    self._newest = None
                elif self._stretch != stretch:
                    # The newest frame, if there is one, comes after what was lost.
                    stretch = self._newest_stretch if frame else self._stretch
                    frame = None
                elif self._error is not None:
                    raise self._error
                else:
                    return
            yield Gap() if frame is None else frame

    def _watch(self) -> None:
        try:
            while not self._ended:
                error = self._read_until_it_fails()
                if error is None or not self._overcome(error):
                    return
        except SourceError as error:
            self._error = error
        except Exception as error:  # a defect must not leave its reader waiting for ever
            _log.exception("%s cannot be watched any more", self.name)
            self._error = SourceError(f"{self.name}: {error!r}")
        finally:
            self.interrupt()

    def _read_until_it_fails(self) -> SourceLostError | None:
        """One opening, until it fails; None when interrupted. Raises what cannot be overcome."""
        reader = CaptureReader(
            self.name,
            self._open_capture,
            self._settings,
            lambda image: self._take(reader, image),
            self._changed,
            self._clock,
        )
        reader.start()
        with self._changed:
            failure: BaseException | None = None
            while failure is None and not self._ended:
                self._changed.wait(self._tick_s)
                failure = reader.failure or reader.stall()
            reader.leave()
        if failure is None:
            return None
        if reader.failure is None:
            self._leave_hanging(reader, failure)
        if not isinstance(failure, SourceLostError):
            raise failure
        if reader.frames:
            self._note_loss()
        return failure

    def _overcome(self, error: SourceLostError) -> bool:
        """Say what happened and wait for the next opening; False when interrupted."""
        self._watcher.health.lost()
        without_s = self._clock() - self._frame_s
        limit_s = self._settings.give_up_s
        if limit_s is not None and without_s >= limit_s:
            raise SourceError(
                f"{error} (without a frame for {without_s:.1f} s: --source_give_up_s)"
            ) from error
        wait_s = self._backoff.next_s()
        if limit_s is not None:
            wait_s = min(wait_s, limit_s - without_s)
        self._watcher.on_change(CameraChange("lost", error, wait_s))
        until_s = self._clock() + wait_s
        with self._changed:
            while not self._ended and (left_s := until_s - self._clock()) > 0:
                self._changed.wait(min(left_s, self._tick_s))
        if self._ended:
            return False
        self._watcher.health.reopened()
        return True

    def _leave_hanging(self, reader: CaptureReader, failure: BaseException) -> None:
        self._hanging = [other for other in self._hanging if other.is_alive] + [reader]
        if len(self._hanging) > MAX_HANGING:
            raise SourceError(
                f"{failure}; {len(self._hanging)} decoders hang by now, which only a new process "
                "helps"
            ) from failure

    def _note_loss(self) -> None:
        if self._frame_s - self._first_frame_s >= STEADY_S:
            self._backoff.reset()
        with self._changed:
            self._stretch += 1
            self._changed.notify_all()

    def _take(self, reader: CaptureReader, image: npt.NDArray[Any]) -> None:
        """On the reader's thread: keep a frame; when nobody took the one before, that one goes."""
        now_s = self._clock()
        same_s = self._frozen.same_for_s(image, now_s)
        if same_s is not None:
            raise SourceFrozenError(
                f"{self.name} has sent one and the same picture for {same_s:.0f} s (--frozen_s)"
            )
        picture = colour(image)
        with self._changed:
            if reader.is_left:
                return
            # Frames from before anyone asked are no loss.
            if self._newest is not None and self._reader_is_there:
                self.dropped += 1
            self._newest = Frame(self._index, now_s - self._start_s, picture)
            self._newest_stretch = self._stretch
            self._index += 1
            self._frame_s = now_s
            self._watcher.health.frame()
            self._changed.notify_all()
        if reader.frames == 0:
            self._first_frame_s = now_s
            self._watcher.on_change(CameraChange("delivering"))
