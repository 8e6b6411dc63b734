"""Frames that are kept for a demo, and clips that come by HTTP."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_encoder.camera import open_source
from edge_encoder.capture.recording import RecordedSource, read_recording
from mien.errors import ConfigError
from tests.support.web import web


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Twelve frames, each brighter than the one before."""
    path = tmp_path / "clip" / "clip.avi"
    path.parent.mkdir()
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48))
    for index in range(12):
        writer.write(np.full((48, 64, 3), 20 * index, np.uint8))
    writer.release()
    return path


def test_a_recording_gives_the_frames_their_indices_and_their_times(
    clip: Path, tmp_path: Path
) -> None:
    with RecordedSource(open_source(str(clip)), tmp_path / "kept") as source:
        seen = [frame for frame in source if frame.index != 5]
    kept = list(read_recording(tmp_path / "kept"))
    assert [frame.index for frame in kept] == list(range(12))
    assert [frame.t_s for frame in kept] == pytest.approx([index / 25 for index in range(12)])
    assert abs(kept[7].image.mean() - seen[6].image.mean()) < 2


def test_a_frame_is_kept_when_it_is_taken_and_not_before(clip: Path, tmp_path: Path) -> None:
    with RecordedSource(open_source(str(clip)), tmp_path / "kept") as source:
        frames = iter(source)
        next(frames)
        next(frames)
    assert len(list((tmp_path / "kept").iterdir())) == 2


def test_a_folder_that_cannot_be_made_is_an_error_of_the_setting(
    clip: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="record"):
        RecordedSource(open_source(str(clip)), clip / "kept")


def test_a_clip_behind_http_waits_for_its_reader(clip: Path) -> None:
    with web(clip.parent) as address, open_source(f"{address}/clip.avi") as source:
        assert not source.live
        assert [frame.index for frame in source] == list(range(12))
        assert source.dropped == 0
