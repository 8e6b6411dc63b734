"""A recognizer that is killed in the middle of a stream."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mien.bundle import Bundle
from mien.cli.child import Child
from tests.support.services import PATIENCE_S, edge, serving
from tests.support.video import frames_of, write_video

# Small chunks, and a long clip at its own speed: there is a middle to be killed in.
MANY_CHUNKS = ("--pace", "true", "--chunk_faces", "2")
FRAMES = 360


@pytest.fixture(scope="module")
def long_clip(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo clip three times over, some 14 seconds."""
    path = tmp_path_factory.mktemp("clip") / "long.mp4"
    write_video(path, frames_of(clip) * 3)
    return path


def follow(running: Child) -> tuple[list[Mapping[str, Any]], Mapping[str, Any]]:
    """Every recognition and the summary, until the edge has ended."""
    recognitions: list[Mapping[str, Any]] = []
    summary: Mapping[str, Any] = {}
    while (event := running.next_event(PATIENCE_S)) is not None:
        match event["event"]:
            case "recognition":
                recognitions.append(event)
            case "summary":
                summary = event
    return recognitions, summary


def first_recognition(running: Child) -> Mapping[str, Any]:
    while (event := running.next_event(PATIENCE_S)) is not None:
        if event["event"] == "recognition":
            return event
    pytest.fail(f"mien-edge ended without any recognition:\n{running.last_words()}")


def test_after_a_restart_every_face_is_recognised_once(
    long_clip: Path, bundle: Bundle, tmp_path: Path
) -> None:
    with serving(bundle.folder, tmp_path / "first.log") as first:
        running = edge(long_clip, first.address, bundle.folder, tmp_path / "edge.log", *MANY_CHUNKS)
        with running:
            recognitions = [first_recognition(running)]
            first.process.process.kill()
            first.process.wait(PATIENCE_S)
            with serving(bundle.folder, tmp_path / "second.log", port=first.port):
                more, summary = follow(running)
            exit_code = running.wait(PATIENCE_S)
    recognitions += more
    assert exit_code == 0, running.last_words()
    seen = Counter((item["frame"], item["track_id"]) for item in recognitions)
    assert set(seen.values()) == {1}
    assert len(recognitions) == summary["faces_sent"] == summary["faces_recognised"]
    assert len({item["frame"] for item in recognitions}) >= 0.95 * FRAMES


def test_a_recognizer_that_never_comes_back_is_exit_code_4_and_a_message(
    long_clip: Path, bundle: Bundle, tmp_path: Path
) -> None:
    with serving(bundle.folder, tmp_path / "cloud.log") as cloud:
        more = (*MANY_CHUNKS, "--give_up_s", "1")
        running = edge(long_clip, cloud.address, bundle.folder, tmp_path / "edge.log", *more)
        with running:
            first_recognition(running)
            cloud.process.process.kill()
            follow(running)
            exit_code = running.wait(PATIENCE_S)
    assert exit_code == 4, running.last_words()
    assert cloud.address in running.last_words()
    assert "Traceback" not in (tmp_path / "edge.log").read_text(encoding="utf-8")
