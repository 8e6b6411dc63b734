"""`mien demo` as a stranger runs it: no terminal, real processes, the released bundle."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from mien.bundle import Bundle
from tests.support.video import frames_of, write_video
from tests.support.web import web

KEYS = [
    "clip",
    "frames",
    "faces_sent",
    "faces_recognised",
    "payload_bytes_per_face",
    "wire_bytes_per_face",
    "edge_ms_per_face",
    "bundle_id",
    "recognitions",
]
RECOGNITION_KEYS = {
    "frame",
    "t_s",
    "track_id",
    "box",
    "expression",
    "probability",
    "probabilities",
}


@dataclass(frozen=True)
class Demo:
    """What a run of the demo left."""

    exit_code: int
    stdout: str
    stderr: str
    out: Path

    @property
    def summary(self) -> dict[str, Any]:
        document = json.loads((self.out / "summary.json").read_text(encoding="utf-8"))
        assert isinstance(document, dict)
        return document


def command(source: Path | str, bundle: Bundle, out: Path) -> list[str]:
    program = [sys.executable, "-u", "-m", "mien.cli.main", "demo"]
    arguments = ["--source", str(source), "--bundle", str(bundle.folder), "--out", str(out)]
    return [*program, *arguments]


def run_demo(source: Path | str, bundle: Bundle, out: Path) -> Demo:
    ran = subprocess.run(
        [*command(source, bundle, out), "--fast"], capture_output=True, text=True, check=False
    )
    return Demo(ran.returncode, ran.stdout, ran.stderr, out)


@pytest.fixture(scope="module")
def demo(clip: Path, bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """One run on the demo clip, looked at by several tests."""
    return run_demo(clip, bundle, tmp_path_factory.mktemp("demo"))


def test_the_summary_has_the_fixed_keys(demo: Demo, bundle: Bundle) -> None:
    assert demo.exit_code == 0, demo.stderr
    assert list(demo.summary) == KEYS
    assert all(set(item) == RECOGNITION_KEYS for item in demo.summary["recognitions"])
    assert demo.summary["clip"] == "carphone_pristine.mp4"
    assert demo.summary["bundle_id"] == bundle.bundle_id


def test_at_least_115_of_the_120_frames_are_recognised(demo: Demo) -> None:
    summary = demo.summary
    assert summary["frames"] == 120
    assert len({item["frame"] for item in summary["recognitions"]}) >= 115
    assert summary["faces_recognised"] == summary["faces_sent"] == len(summary["recognitions"])


def test_the_man_keeps_his_track_id(demo: Demo) -> None:
    tracks = Counter(item["track_id"] for item in demo.summary["recognitions"])
    assert tracks.most_common(1)[0][1] >= 115


def test_surprise_is_on_top_around_frame_60_and_not_before_frame_20(demo: Demo) -> None:
    named = {item["frame"]: item["expression"] for item in demo.summary["recognitions"]}
    assert "surprise" not in {named.get(frame) for frame in range(20)}
    around = [named[frame] for frame in range(57, 64) if frame in named]
    assert Counter(around).most_common(1)[0][0] == "surprise"


def test_a_face_costs_at_most_40_payload_bytes_and_the_wire_is_counted(demo: Demo) -> None:
    summary = demo.summary
    assert 0 < summary["payload_bytes_per_face"] <= 40
    assert summary["wire_bytes_per_face"] > summary["payload_bytes_per_face"]
    assert summary["edge_ms_per_face"] > 0


def test_probabilities_are_of_the_bundles_expressions(demo: Demo, bundle: Bundle) -> None:
    for item in demo.summary["recognitions"]:
        assert tuple(item["probabilities"]) == bundle.manifest.expressions
        assert sum(item["probabilities"].values()) == pytest.approx(1, abs=1e-3)
        assert item["probability"] == max(item["probabilities"].values())
        assert item["probabilities"][item["expression"]] == item["probability"]


def test_the_pictures_can_be_looked_at(demo: Demo) -> None:
    timeline = cv2.imread(str(demo.out / "timeline.png"))
    assert timeline is not None
    assert timeline.std() > 20
    assert len(frames_of(demo.out / "annotated.mp4")) == 120


def test_without_a_terminal_plain_lines_tell_what_happens(demo: Demo) -> None:
    assert "\x1b" not in demo.stdout
    assert "B/face" in demo.stdout
    assert "HTTP/2 framing" in demo.stdout


def test_a_clip_without_a_face_is_no_error(bundle: Bundle, tmp_path: Path) -> None:
    slope = np.linspace(30, 220, 320, dtype=np.uint8)
    picture = np.repeat(np.tile(slope, (240, 1))[:, :, None], 3, axis=2)
    write_video(tmp_path / "empty.mp4", [np.roll(picture, 4 * i, axis=1) for i in range(20)])
    demo = run_demo(tmp_path / "empty.mp4", bundle, tmp_path / "out")
    assert demo.exit_code == 0, demo.stderr
    summary = demo.summary
    assert list(summary) == KEYS
    assert summary["frames"] == 20
    assert (summary["faces_sent"], summary["faces_recognised"]) == (0, 0)
    assert summary["recognitions"] == []
    assert summary["payload_bytes_per_face"] is None
    assert len(frames_of(demo.out / "annotated.mp4")) == 20


def test_a_folder_of_photographs_is_a_source(clip: Path, bundle: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "photographs"
    folder.mkdir()
    for index, image in enumerate(frames_of(clip)[::20]):
        cv2.imwrite(str(folder / f"{index:03d}.png"), image)
    demo = run_demo(folder, bundle, tmp_path / "out")
    assert demo.exit_code == 0, demo.stderr
    summary = demo.summary
    assert summary["frames"] == 6
    named = {item["frame"]: item["expression"] for item in summary["recognitions"]}
    assert set(named) == set(range(6))
    assert named[3] == "surprise"


def test_a_clip_behind_a_url_is_drawn_into_and_its_frames_are_not_kept(
    clip: Path, bundle: Bundle, tmp_path: Path
) -> None:
    (tmp_path / "web").mkdir()
    write_video(tmp_path / "web" / "clip.avi", frames_of(clip)[:12])
    with web(tmp_path / "web") as address:
        demo = run_demo(f"{address}/clip.avi", bundle, tmp_path / "out")
    assert demo.exit_code == 0, demo.stderr
    assert {item["frame"] for item in demo.summary["recognitions"]} == set(range(12))
    assert len(frames_of(demo.out / "annotated.mp4")) == 12
    assert not (demo.out / "frames").exists()


def test_a_source_that_is_not_there_is_exit_code_3(bundle: Bundle, tmp_path: Path) -> None:
    demo = run_demo(tmp_path / "nothing.mp4", bundle, tmp_path / "out")
    assert demo.exit_code == 3
    assert "nothing.mp4" in demo.stderr
    assert "Traceback" not in demo.stderr


def test_a_folder_that_is_no_bundle_is_exit_code_5(
    clip: Path, bundle: Bundle, tmp_path: Path
) -> None:
    ran = subprocess.run(
        [*command(clip, bundle, tmp_path / "out"), "--bundle", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 5
    assert f"there is no bundle in {tmp_path}" in ran.stderr


def test_ctrl_c_ends_it_in_order_with_what_was_seen(
    clip: Path, bundle: Bundle, tmp_path: Path
) -> None:
    # Forty seconds at its own speed: it is not over before the signal comes.
    write_video(tmp_path / "long.mp4", frames_of(clip)[:20] * 50)
    with subprocess.Popen(
        command(tmp_path / "long.mp4", bundle, tmp_path / "out"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"MIEN_EDGE_CHUNK_FACES": "1"},
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()  # the first recognition: now there is something to keep
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate()
    assert process.returncode == 0, stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    assert 0 < summary["faces_recognised"] < 1000
    assert summary["faces_recognised"] == summary["faces_sent"]
    assert (tmp_path / "out" / "annotated.mp4").is_file()
