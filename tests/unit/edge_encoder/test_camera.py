"""Sources: every frame of a file, the newest of a camera, and an error for what is neither."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_encoder.camera import DEFAULT_FPS, VideoFile, open_source
from edge_encoder.live_camera import LiveSource, without_credentials
from mien.errors import SourceError
from tests.support.moving_face import Scene
from tests.unit.edge_encoder.conftest import CLIP_FRAMES

PATIENCE_S = 60.0
BLACK = np.zeros((8, 8, 3), np.uint8)


def test_a_clip_gives_every_frame_with_its_time(clip: Path) -> None:
    with open_source(str(clip)) as source:
        frames = list(source)
    assert [frame.index for frame in frames] == list(range(CLIP_FRAMES))
    assert [frame.t_s for frame in frames] == pytest.approx([i / 25 for i in range(CLIP_FRAMES)])
    assert {frame.image.shape for frame in frames} == {(240, 320, 3)}
    assert not source.live
    assert source.dropped == 0


def test_a_clip_is_played_at_its_own_speed_when_asked(clip: Path) -> None:
    now = 0.0
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        nonlocal now
        slept.append(seconds)
        now += seconds

    with VideoFile(clip, pace=True, clock=lambda: now, sleep=sleep) as source:
        assert len(list(source)) == CLIP_FRAMES
    assert now == pytest.approx((CLIP_FRAMES - 1) / 25)


def test_a_clip_is_read_on_when_its_reader_stops_early(clip: Path) -> None:
    with open_source(str(clip)) as source:
        assert next(iter(source)).index == 0


def test_a_folder_gives_its_images_by_name_and_counts_what_is_none(tmp_path: Path) -> None:
    for name, shade in (("b.png", 20), ("a.jpg", 10), ("d.bmp", 40)):
        cv2.imwrite(str(tmp_path / name), np.full((10, 12, 3), shade, np.uint8))
    (tmp_path / "c.png").write_bytes(b"no picture")
    (tmp_path / "notes.txt").write_text("no picture either")
    with open_source(str(tmp_path)) as source:
        frames = list(source)
    assert [frame.image[0, 0, 0] for frame in frames] == [10, 20, 40]
    assert [frame.index for frame in frames] == [0, 1, 3]
    assert frames[-1].t_s == pytest.approx(3 / DEFAULT_FPS)
    assert source.dropped == 1
    assert source.stills


def test_one_image_is_a_folder_of_one(tmp_path: Path) -> None:
    path = tmp_path / "face.PNG"
    cv2.imwrite(str(path), Scene().picture(10, 10))
    with open_source(str(path)) as source:
        assert [frame.index for frame in source] == [0]
    assert source.stills


def test_a_grey_image_becomes_one_of_three_channels(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((9, 9), 50, np.uint8))
    with open_source(str(tmp_path)) as source:
        assert next(iter(source)).image.shape == (9, 9, 3)


@pytest.mark.parametrize("source", ["/nowhere/clip.mp4", "gopher://host/x", "camera", "-1"])
def test_what_is_no_source_is_said_to_be_none(source: str) -> None:
    with pytest.raises(SourceError, match="is no file, folder, camera number or URL"):
        open_source(source)


def test_a_file_that_is_no_video_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"no video" * 100)
    with pytest.raises(SourceError, match="cannot be read as a video"):
        open_source(str(path))


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds no image"):
        open_source(str(tmp_path))


def test_a_folder_of_which_nothing_can_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    with open_source(str(tmp_path)) as source, pytest.raises(SourceError, match="none of the 1"):
        list(source)


def test_a_camera_that_is_not_there_is_refused() -> None:
    with pytest.raises(SourceError, match="no camera 99"):
        open_source("99")


@contextmanager
def silent_server() -> Iterator[str]:
    """A port where connections are accepted by the kernel and nothing is ever answered."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("scheme", ["http", "rtsp"])
def test_a_url_that_never_answers_is_given_up(scheme: str) -> None:
    with (
        silent_server() as address,
        pytest.raises(SourceError, match=r"did not answer within 0\.3 s \(--open_timeout_s\)"),
    ):
        open_source(f"{scheme}://{address}/live", open_timeout_s=0.3)


def test_a_closed_port_is_not_waited_for() -> None:
    with silent_server() as address:
        pass
    with pytest.raises(SourceError, match="nothing listens there"):
        open_source(f"http://{address}/live", open_timeout_s=PATIENCE_S)


def test_a_url_is_named_without_its_secrets() -> None:
    url = "rtsp://admin:secret@camera.local:554/live?token=abc#x"
    assert without_credentials(url) == "rtsp://camera.local:554/live"
    with pytest.raises(SourceError) as caught:
        open_source("http://admin:secret@127.0.0.1:9/live?token=abc", open_timeout_s=1)
    assert "secret" not in str(caught.value)
    assert "abc" not in str(caught.value)


class ScriptedCapture:
    """A camera whose every frame is released by the test."""

    def __init__(self) -> None:
        self.pictures: list[np.ndarray | None] = []
        self.released = threading.Event()
        self.more = threading.Semaphore(0)
        self.asked = threading.Semaphore(0)

    def give(self, *pictures: np.ndarray | None) -> None:
        """Let it capture these; None is a failure to read."""
        for picture in pictures:
            self.pictures.append(picture)
            self.more.release()

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


def shade(value: int) -> np.ndarray:
    return np.full((8, 8, 3), value, np.uint8)


def test_of_a_camera_the_newest_frame_is_taken_and_the_others_counted() -> None:
    capture = ScriptedCapture()
    with LiveSource("camera", capture, 10.0) as source:
        frames = iter(source)
        capture.wait_until_asked(1)
        capture.give(shade(1))
        assert next(frames).image[0, 0, 0] == 1
        capture.wait_until_asked(1)
        capture.give(shade(2), shade(3), shade(4))
        capture.wait_until_asked(3)  # the fourth read begins: the third frame is kept
        newest = next(frames)
        assert newest.image[0, 0, 0] == 4
        assert newest.index == 3
        assert source.dropped == 2
        capture.give(None)
        assert list(frames) == []
    assert capture.released.wait(PATIENCE_S)


def test_frames_from_before_anyone_asked_are_no_loss() -> None:
    capture = ScriptedCapture()
    with LiveSource("camera", capture, 10.0) as source:
        capture.give(shade(1), shade(2))
        capture.wait_until_asked(3)
        assert next(iter(source)).image[0, 0, 0] == 2
        assert source.dropped == 0
        capture.give(None)


def test_a_camera_that_stops_sending_is_an_error() -> None:
    capture = ScriptedCapture()
    now = iter([0.0, 0.0, 0.1, 0.1, 10.2])  # start; before and after each read
    with LiveSource("camera 1", capture, 10.0, clock=lambda: next(now)) as source:
        capture.give(shade(1), None)
        with pytest.raises(SourceError, match=r"camera 1 sent no frame for 10\.1 s"):
            list(source)


def test_a_stream_without_a_single_frame_is_an_error() -> None:
    capture = ScriptedCapture()
    with LiveSource("camera 1", capture, 10.0) as source:
        capture.give(None)
        with pytest.raises(SourceError, match="no frame that can be decoded"):
            list(source)


def test_who_waits_for_a_camera_can_be_interrupted() -> None:
    capture = ScriptedCapture()
    with LiveSource("camera", capture, 10.0) as source:
        threading.Timer(0.05, source.interrupt).start()
        assert list(source) == []
        capture.give(None)
