"""`mien recognize`, `watch` and `inspect` against a real recognizer and the released bundle."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from mien.bitstream import Box, EncodedFace
from mien.bundle import Bundle, load_bundle
from mien.cli.main import main
from mien.probe import load_probe
from tests.support.services import PATIENCE_S, Cloud, edge

EDGE_COUNT = 5


@pytest.fixture(scope="module")
def photographs(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Frames 0 and 60 of the demo clip."""
    folder = tmp_path_factory.mktemp("photographs")
    capture = cv2.VideoCapture(str(clip))
    paths = []
    for index in range(61):
        _, image = capture.read()
        if index in (0, 60):
            paths.append(folder / f"{index}.png")
            cv2.imwrite(str(paths[-1]), image)
    return paths


def test_recognize_names_the_expression_of_each_photograph(
    cloud: Cloud, photographs: list[Path], bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["recognize", *map(str, photographs), "--server", cloud.address])
    assert code == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["image"] for line in lines] == [str(path) for path in photographs]
    assert lines[1]["expression"] == "surprise"
    for line in lines:
        assert tuple(line["probabilities"]) == bundle.manifest.expressions
        assert line["bundle_id"] == bundle.bundle_id
        assert line["error"] is None


def test_recognize_says_which_image_it_could_not_read_and_goes_on(
    cloud: Cloud, photographs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, empty = tmp_path / "broken.jpg", tmp_path / "empty.png"
    broken.write_bytes(b"no picture")
    cv2.imwrite(str(empty), np.full((200, 300, 3), 127, np.uint8))
    images = [str(broken), str(empty), str(photographs[0])]
    assert main(["recognize", *images, "--server", cloud.address]) == 3
    first, second, third = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert first["error"]["code"] == "source"
    assert second["error"]["code"] == "no_face"
    assert third["error"] is None
    assert first.keys() == second.keys() == third.keys()


def test_watch_sees_what_a_device_sends(
    cloud: Cloud, clip: Path, bundle: Bundle, tmp_path: Path
) -> None:
    arguments = ["watch", "--server", cloud.address, "--json", "--limit", str(EDGE_COUNT)]
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "mien.cli.main", *arguments, "--device", "door"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as watcher:
        assert watcher.stderr is not None
        watcher.stderr.readline()  # it says when it watches
        log = tmp_path / "edge.log"
        with edge(clip, cloud.address, bundle.folder, log, "--device_id", "door") as running:
            running.next_event(PATIENCE_S)
            out, _ = watcher.communicate(timeout=PATIENCE_S)
    lines = [json.loads(line) for line in out.splitlines()]
    assert len(lines) == EDGE_COUNT
    assert {line["device_id"] for line in lines} == {"door"}


def test_inspect_says_what_is_in_the_bundle(
    bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(bundle.folder)]) == 0
    said = capsys.readouterr().out
    assert bundle.bundle_id in said
    assert "surprise" in said


def test_inspect_says_what_is_in_a_payload(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    symbols = load_probe(load_bundle(bundle.folder, ("probe.npz",))).symbols[0]
    file = tmp_path / "chunk.bin"
    file.write_bytes(bundle.codec().encode([EncodedFace(40, 3, Box(1, 2, 30, 40), symbols)]))
    assert main(["inspect", str(file), "--bundle", str(bundle.folder)]) == 0
    said = capsys.readouterr().out
    assert "checksum holds" in said
    assert "track 3, box 30×40 at (1, 2)" in said
