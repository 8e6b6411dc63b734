"""Cameras that fail: each failure has its name, and the camera is opened again."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_encoder.camera import open_source
from edge_encoder.capture.frames import Frame, Gap
from edge_encoder.capture.health import CameraChange, CameraHealth, Watcher
from edge_encoder.capture.live_camera import LONGEST_REOPEN_S, MAX_HANGING, STEADY_S, LiveSource
from edge_encoder.capture.opening import Capture
from edge_encoder.capture.reader import LiveSettings
from mien.backoff import Backoff
from mien.errors import (
    SourceEndedError,
    SourceError,
    SourceFrozenError,
    SourceOpenError,
    SourceStalledError,
    SourceTimeoutError,
)
from tests.support.mjpeg_camera import MjpegCamera
from tests.support.moving_face import film, walk
from tests.support.web import web

PATIENCE_S = 60.0
BLACK = np.zeros((8, 8, 3), np.uint8)
TICK_S = 0.002


def shade(value: int) -> np.ndarray:
    return np.full((8, 8, 3), value, np.uint8)


class ScriptedCapture:
    """A camera whose every frame is released by the test."""

    def __init__(self) -> None:
        self.pictures: list[np.ndarray | None] = []
        self.released = threading.Event()
        self.more = threading.Semaphore(0)
        self.asked = threading.Semaphore(0)

    def give(self, *pictures: np.ndarray | None) -> "ScriptedCapture":
        """Let it capture these; None is a failure to read."""
        for picture in pictures:
            self.pictures.append(picture)
            self.more.release()
        return self

    def read(self) -> tuple[bool, np.ndarray]:
        self.asked.release()
        assert self.more.acquire(timeout=PATIENCE_S)
        picture = self.pictures.pop(0)
        return picture is not None, BLACK if picture is None else picture

    def release(self) -> None:
        self.released.set()

    def wait_until_asked(self, times: int) -> None:
        for _ in range(times):
            assert self.asked.acquire(timeout=PATIENCE_S)


class Bench:
    """A live source on a clock that the test moves, and what it said."""

    def __init__(
        self, *openings: ScriptedCapture | SourceError | Callable[[], Capture], **settings: float
    ) -> None:
        self.now_s = 0.0
        self.openings = list(openings)
        self.opened = threading.Semaphore(0)
        self.changes: list[CameraChange] = []
        self.told = threading.Semaphore(0)
        self.health = CameraHealth(clock=self.clock)
        self.source = LiveSource(
            "camera 1",
            self.open,
            replace(LiveSettings(frozen_s=0), **settings),
            watcher=Watcher(self.health, self.tell),
            backoff=Backoff(1.0, LONGEST_REOPEN_S, uniform=lambda low, high: high),
            clock=self.clock,
            tick_s=TICK_S,
        )

    def clock(self) -> float:
        return self.now_s

    def open(self) -> Capture:
        self.opened.release()
        # An opening that the test did not foresee is a camera that is switched off.
        opening = self.openings.pop(0) if self.openings else SourceOpenError("switched off")
        if isinstance(opening, SourceError):
            raise opening
        return opening if isinstance(opening, ScriptedCapture) else opening()

    def tell(self, change: CameraChange) -> None:
        self.changes.append(change)
        self.told.release()

    def next_change(self) -> CameraChange:
        assert self.told.acquire(timeout=PATIENCE_S)
        return self.changes.pop(0)

    def lost(self) -> CameraChange:
        """The next change, a loss; the clock has moved to the next opening."""
        change = self.next_change()
        assert change.state == "lost"
        assert change.retry_in_s is not None
        self.now_s += change.retry_in_s
        return change


def test_of_a_camera_the_newest_frame_is_taken_and_the_others_counted() -> None:
    capture = ScriptedCapture()
    with Bench(capture).source as source:
        frames = iter(source)
        capture.wait_until_asked(1)
        capture.give(shade(1))
        assert image_of(next(frames)) == 1
        capture.wait_until_asked(1)
        capture.give(shade(2), shade(3), shade(4))
        capture.wait_until_asked(3)  # the fourth read begins: the third frame is kept
        newest = next(frames)
        assert image_of(newest) == 4
        assert isinstance(newest, Frame)
        assert newest.index == 3
        assert source.dropped == 2
    capture.give(None)
    assert capture.released.wait(PATIENCE_S)


def image_of(item: Frame | Gap) -> int:
    assert isinstance(item, Frame)
    return int(item.image[0, 0, 0])


def test_frames_from_before_anyone_asked_are_no_loss() -> None:
    capture = ScriptedCapture()
    with Bench(capture).source as source:
        capture.give(shade(1), shade(2))
        capture.wait_until_asked(3)
        assert image_of(next(iter(source))) == 2
        assert source.dropped == 0
        capture.give(None)


def test_who_waits_for_a_camera_can_be_interrupted() -> None:
    capture = ScriptedCapture()
    with Bench(capture).source as source:
        threading.Timer(0.05, source.interrupt).start()
        assert list(source) == []
        capture.give(None)


def test_who_waits_for_a_camera_that_is_off_can_be_interrupted() -> None:
    bench = Bench(SourceOpenError("off"))
    with bench.source as source:
        bench.next_change()  # and the clock stands: it waits for the next opening
        source.interrupt()
        assert list(source) == []


def test_a_camera_that_ends_is_opened_again_and_its_frames_go_on() -> None:
    first, second = ScriptedCapture(), ScriptedCapture()
    bench = Bench(first, SourceOpenError("nothing listens"), second)
    with bench.source as source:
        frames = iter(source)
        first.give(shade(1))
        assert image_of(next(frames)) == 1
        assert bench.next_change().state == "delivering"
        first.give(None)
        assert isinstance(next(frames), Gap)
        assert first.released.wait(PATIENCE_S)
        assert isinstance(bench.lost().error, SourceEndedError)
        assert isinstance(bench.lost().error, SourceOpenError)
        second.give(shade(2))
        again = next(frames)
        assert bench.next_change().state == "delivering"
    assert isinstance(again, Frame)
    assert (again.index, image_of(again)) == (1, 2)
    assert again.t_s == bench.now_s  # times go on, and the outage is in them
    second.give(None)
    assert bench.health.report().reopens == 2


def test_a_frame_that_was_not_taken_before_the_loss_comes_before_the_gap() -> None:
    first, second = ScriptedCapture().give(shade(1), None), ScriptedCapture()
    bench = Bench(first, second)
    with bench.source as source:
        bench.next_change()
        bench.next_change()
        frames = iter(source)
        assert image_of(next(frames)) == 1
        assert isinstance(next(frames), Gap)


def test_a_frame_of_after_the_loss_does_not_overtake_the_gap() -> None:
    first, second = ScriptedCapture(), ScriptedCapture()
    bench = Bench(first, second)
    with bench.source as source:
        frames = iter(source)
        first.give(shade(1))
        assert image_of(next(frames)) == 1
        first.give(None)
        bench.next_change()
        bench.lost()
        second.give(shade(2))
        second.wait_until_asked(2)
        assert isinstance(next(frames), Gap)
        assert image_of(next(frames)) == 2
        second.give(None)


def test_waits_grow_until_the_camera_has_been_steady() -> None:
    short = [ScriptedCapture().give(shade(index), None) for index in range(6)]
    steady = ScriptedCapture()
    bench = Bench(*short, steady)
    with bench.source:
        waits = []
        for _ in short:
            assert bench.next_change().state == "delivering"
            waits.append(bench.lost().retry_in_s)
        assert waits == [1, 2, 4, 8, 16, LONGEST_REOPEN_S]
        steady.give(shade(1))
        assert bench.next_change().state == "delivering"
        bench.now_s += STEADY_S
        steady.give(shade(2), None)
        assert bench.lost().retry_in_s == 1


def test_a_read_that_fails_after_its_time_has_timed_out() -> None:
    capture = ScriptedCapture()
    bench = Bench(capture)
    with bench.source:
        capture.give(shade(1))
        bench.next_change()
        capture.wait_until_asked(2)
        bench.now_s += 10.1
        capture.give(None)
        change = bench.lost()
    assert isinstance(change.error, SourceTimeoutError)
    assert "camera 1 sent no frame for 10.1 s" in str(change.error)


def test_a_stream_without_a_single_frame_is_said_to_have_none() -> None:
    bench = Bench(ScriptedCapture().give(None))
    with bench.source:
        assert "no frame that can be decoded" in str(bench.lost().error)


def test_a_decoder_that_hangs_is_left_and_the_camera_opened_anew() -> None:
    hanging, fresh = ScriptedCapture(), ScriptedCapture()
    bench = Bench(hanging, fresh, stall_s=20)
    with bench.source as source:
        frames = iter(source)
        hanging.give(shade(1))
        assert image_of(next(frames)) == 1
        bench.next_change()
        hanging.wait_until_asked(2)
        bench.now_s += 20
        assert isinstance(bench.lost().error, SourceStalledError)
        assert isinstance(next(frames), Gap)
        fresh.give(shade(2))
        assert image_of(next(frames)) == 2
        # What the decoder gives after it has been left is nobody's any more.
        hanging.give(shade(9))
        assert hanging.released.wait(PATIENCE_S)
        fresh.give(shade(3))
        assert image_of(next(frames)) == 3
        fresh.give(None)


def test_an_opening_that_hangs_is_left_too() -> None:
    at_last = threading.Event()

    def hang() -> Capture:
        assert at_last.wait(PATIENCE_S)
        raise SourceOpenError("too late to matter")

    bench = Bench(hang, stall_s=5, open_timeout_s=3)
    with bench.source:
        assert bench.opened.acquire(timeout=PATIENCE_S)
        bench.now_s += 8
        change = bench.lost()
        at_last.set()
    assert isinstance(change.error, SourceStalledError)
    assert "neither opens nor fails" in str(change.error)


def test_decoders_that_keep_hanging_end_the_source() -> None:
    hanging = [ScriptedCapture() for _ in range(MAX_HANGING + 1)]
    bench = Bench(*hanging, stall_s=20)
    with bench.source as source:
        for capture in hanging:
            capture.wait_until_asked(1)
            bench.now_s += 20
            if capture is not hanging[-1]:
                bench.lost()
        with pytest.raises(SourceError, match="only a new process helps"):
            next(iter(source))
    for capture in hanging:
        capture.give(None)


def test_a_picture_that_stays_the_same_is_a_failure_and_is_remembered() -> None:
    first, second, third = ScriptedCapture(), ScriptedCapture(), ScriptedCapture()
    bench = Bench(first, second, third, frozen_s=60, stall_s=1000)
    with bench.source:
        first.wait_until_asked(1)
        for moment in (0.0, 30.0, 59.0):
            bench.now_s = moment
            first.give(shade(7))
            first.wait_until_asked(1)  # the next read begins: this picture has been looked at
        bench.now_s = 60.0
        first.give(shade(7))
        bench.next_change()
        assert isinstance(bench.lost().error, SourceFrozenError)
        second.give(shade(7))  # it comes back just as it went
        assert isinstance(bench.lost().error, SourceFrozenError)
        third.give(shade(8))
        assert bench.next_change().state == "delivering"
        third.give(None)


def test_pictures_that_come_back_are_not_frozen() -> None:
    capture = ScriptedCapture()
    bench = Bench(capture, frozen_s=60, stall_s=1000)
    with bench.source:
        capture.wait_until_asked(1)
        for step in range(10):
            bench.now_s = 30.0 * step
            capture.give(shade(step % 2))
            capture.wait_until_asked(1)
        assert bench.next_change().state == "delivering"
        assert not bench.changes
        capture.give(None)


def test_a_camera_that_stays_away_ends_the_run_where_that_is_asked_for() -> None:
    bench = Bench(give_up_s=2.5)
    with bench.source as source:
        assert [bench.lost().retry_in_s for _ in range(2)] == [1, 1.5]
        with pytest.raises(SourceError, match=r"switched off \(without a frame for 2\.5 s"):
            next(iter(source))


def test_what_no_opening_can_mend_ends_the_source() -> None:
    bench = Bench(SourceError("is a clip"))
    with bench.source as source, pytest.raises(SourceError, match="is a clip"):
        next(iter(source))


def test_a_defect_of_the_decoder_ends_the_source_and_leaves_nobody_waiting() -> None:
    class Broken(ScriptedCapture):
        def read(self) -> tuple[bool, np.ndarray]:
            raise ZeroDivisionError

    with (
        Bench(Broken()).source as source,
        pytest.raises(SourceError, match="ZeroDivisionError"),
    ):
        next(iter(source))


QUICK = LiveSettings(open_timeout_s=5, read_timeout_s=0.4, frozen_s=0)


@contextmanager
def watched(
    camera: MjpegCamera, settings: LiveSettings
) -> Iterator[tuple[Iterator[Frame | Gap], Callable[[str], CameraChange]]]:
    """The camera's frames, and a way to wait for its next change into a state."""
    changes: list[CameraChange] = []
    told = threading.Semaphore(0)

    def tell(change: CameraChange) -> None:
        changes.append(change)
        told.release()

    def wait_for(state: str) -> CameraChange:
        while True:
            assert told.acquire(timeout=PATIENCE_S)
            change = changes.pop(0)
            if change.state == state:
                return change

    with open_source(camera.url, settings, watcher=Watcher(on_change=tell)) as source:
        yield iter(source), wait_for


def frame_after(frames: Iterator[Frame | Gap]) -> Frame:
    """The next frame, past the gap that must come first."""
    for item in frames:
        if isinstance(item, Gap):
            break
    frame = next(frames)
    assert isinstance(frame, Frame)
    return frame


def test_a_real_camera_that_dies_and_comes_back_is_streamed_on() -> None:
    camera = MjpegCamera()
    with camera.on():
        pass  # now it has an address
    with watched(camera, QUICK) as (frames, wait_for):
        assert isinstance(wait_for("lost").error, SourceOpenError)
        with camera.on():
            wait_for("delivering")
            last = next(frames)
        wait_for("lost")
        with camera.on():
            again = frame_after(frames)
    assert isinstance(last, Frame)
    assert again.index > last.index
    assert again.t_s > last.t_s


def test_a_real_camera_that_stalls_is_opened_anew() -> None:
    camera = MjpegCamera()
    with camera.on(), watched(camera, QUICK) as (frames, wait_for):
        next(frames)
        camera.stalled.set()
        assert isinstance(wait_for("lost").error, SourceTimeoutError)
        connections = camera.connections
        camera.stalled.clear()
        frame_after(frames)
        assert camera.connections > connections


def test_a_real_camera_whose_picture_freezes_is_opened_anew() -> None:
    camera = MjpegCamera()
    settings = replace(QUICK, read_timeout_s=5, frozen_s=0.6)
    with camera.on(), watched(camera, settings) as (frames, wait_for):
        next(frames)
        camera.frozen.set()
        assert isinstance(wait_for("lost").error, SourceFrozenError)
        camera.frozen.clear()
        frame_after(frames)


def test_a_clip_that_appears_where_a_camera_was_awaited_ends_the_run(tmp_path: Path) -> None:
    film(tmp_path / "clip.mp4", walk(4))
    with web(tmp_path) as address, open_source(f"{address}/later.mp4", QUICK) as source:
        (tmp_path / "clip.mp4").rename(tmp_path / "later.mp4")
        with pytest.raises(SourceError, match="is a clip with an end"):
            next(iter(source))
