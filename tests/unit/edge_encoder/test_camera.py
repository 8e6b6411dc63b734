"""Sources: every frame of a file, the newest of a camera, and an error for what is neither."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_encoder.camera import open_source
from edge_encoder.capture.files import DEFAULT_FPS, VideoFile
from edge_encoder.capture.reader import LiveSettings
from mien.errors import SourceError
from tests.support.moving_face import Scene
from tests.support.web import web
from tests.unit.edge_encoder.conftest import CLIP_FRAMES

PATIENCE_S = 60.0


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


def test_a_clip_is_played_as_often_as_asked_and_time_goes_on(clip: Path) -> None:
    with open_source(str(clip), rounds=3) as source:
        frames = list(source)
    assert [frame.index for frame in frames] == list(range(3 * CLIP_FRAMES))
    assert frames[-1].t_s == pytest.approx((3 * CLIP_FRAMES - 1) / 25)
    first, again = frames[0].image, frames[CLIP_FRAMES].image
    assert np.array_equal(first, again)


def test_a_clip_is_played_for_ever_when_asked(clip: Path) -> None:
    with open_source(str(clip), rounds=0) as source:
        assert sum(1 for _ in islice(source, 5 * CLIP_FRAMES)) == 5 * CLIP_FRAMES


def test_a_clip_behind_http_is_played_again_too(clip: Path) -> None:
    with web(clip.parent) as address, open_source(f"{address}/{clip.name}", rounds=2) as source:
        assert sum(1 for _ in source) == 2 * CLIP_FRAMES


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


def first_error(source: str, **live: float) -> SourceError:
    """What a live source ends with that is opened once."""
    settings = LiveSettings(give_up_s=0, **live)
    with open_source(source, settings) as opened, pytest.raises(SourceError) as caught:
        next(iter(opened))
    assert opened.live
    return caught.value


def test_a_camera_that_is_not_there_is_said_to_be_so() -> None:
    assert "no camera 99" in str(first_error("99"))


@contextmanager
def silent_server() -> Iterator[str]:
    """A port where connections are accepted by the kernel and nothing is ever answered."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("scheme", ["http", "rtsp"])
def test_a_url_that_never_answers_is_given_up(scheme: str) -> None:
    with silent_server() as address:
        error = first_error(f"{scheme}://{address}/live", open_timeout_s=0.3)
    assert "did not answer within 0.3 s (--open_timeout_s)" in str(error)


def test_a_closed_port_is_not_waited_for() -> None:
    with silent_server() as address:
        pass
    error = first_error(f"http://{address}/live", open_timeout_s=PATIENCE_S)
    assert "nothing listens there" in str(error)


def test_a_url_is_named_without_its_secrets() -> None:
    url = "rtsp://admin:secret@camera.local:554/live?token=abc#x"
    with open_source(url) as source:
        assert source.name == "rtsp://camera.local:554/live"
    error = first_error("http://admin:secret@127.0.0.1:9/live?token=abc", open_timeout_s=1)
    assert "secret" not in str(error)
    assert "abc" not in str(error)
