"""What the demo draws: timeline.png, annotated.mp4, the live view."""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rich.console import Console

from mien.cli.annotate import annotate, frame_rate
from mien.cli.live import PlainView, picture
from mien.cli.palette import COLOURS, colour, rgb
from mien.cli.results import FaceResult, summary_document, write_summary
from mien.cli.tally import Tally, bar, sparkline
from mien.cli.timeline import draw_timeline, most_seen_tracks
from mien.errors import SourceError

EXPRESSIONS = tuple(COLOURS)
FIGURES = {
    "clip": "clip.mp4",
    "frames": 3,
    "faces_sent": 3,
    "faces_recognised": 3,
    "payload_bytes_per_face": 17.5,
    "wire_bytes_per_face": 25.0,
    "edge_ms_per_face": 9.0,
    "bundle_id": "ab" * 32,
}


def face(frame: int, expression: str = "neutral", track_id: int = 1) -> FaceResult:
    probabilities = dict.fromkeys(EXPRESSIONS, 0.05)
    probabilities[expression] = 0.65
    return FaceResult(
        frame=frame,
        t_s=frame / 30,
        track_id=track_id,
        box=(10, 12, 40, 50),
        expression=expression,
        probability=0.65,
        probabilities=probabilities,
        chunk_bytes=140,
        chunk_faces=8,
    )


@dataclass
class Frame:
    index: int
    t_s: float
    image: Any


def frames(count: int, height: int = 120, width: int = 160) -> Iterator[Frame]:
    for index in range(count):
        yield Frame(index, index / 30, np.full((height, width, 3), 90, np.uint8))


def read_video(path: Path) -> list[Any]:
    capture = cv2.VideoCapture(str(path))
    images = []
    while True:
        more, image = capture.read()
        if not more:
            return images
        images.append(image)


def test_the_summary_has_exactly_the_fixed_keys_in_frame_order() -> None:
    document = summary_document({**FIGURES, "drops": {}}, [face(2), face(0), face(1)])
    assert list(document) == [
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
    assert [item["frame"] for item in document["recognitions"]] == [0, 1, 2]
    assert list(document["recognitions"][0]) == [
        "frame",
        "t_s",
        "track_id",
        "box",
        "expression",
        "probability",
        "probabilities",
    ]


def test_the_summary_is_plain_json(tmp_path: Path) -> None:
    document = summary_document(FIGURES, [face(0)])
    write_summary(tmp_path / "summary.json", document)
    read = json.loads((tmp_path / "summary.json").read_text())
    assert read["recognitions"][0]["box"] == [10, 12, 40, 50]
    assert read["payload_bytes_per_face"] == 17.5
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]


@pytest.mark.parametrize(
    "faces",
    [
        pytest.param([], id="nobody"),
        pytest.param([face(7)], id="one face once"),
        pytest.param([face(i, track_id=i) for i in range(5)], id="photographs"),
        pytest.param([face(i, track_id=i % 6) for i in range(60)], id="more faces than panels"),
        pytest.param([face(0), face(1), face(200), face(201)], id="a long absence"),
    ],
)
def test_a_timeline_is_drawn_whatever_was_seen(tmp_path: Path, faces: list[FaceResult]) -> None:
    draw_timeline(tmp_path / "timeline.png", faces, "clip.mp4")
    image = cv2.imread(str(tmp_path / "timeline.png"))
    assert image is not None
    assert image.shape[0] > 300
    assert image.shape[1] > 1000


def test_the_timeline_shows_the_expressions_colour(tmp_path: Path) -> None:
    draw_timeline(tmp_path / "t.png", [face(i, "surprise") for i in range(30)], "clip.mp4")
    image = cv2.imread(str(tmp_path / "t.png"))
    assert image is not None
    red, green, blue = rgb("surprise")
    share = np.mean(np.all(image == (blue, green, red), axis=2))
    assert share > 0.15


def test_the_tracks_with_the_most_faces_get_the_panels() -> None:
    faces = [face(i, track_id=track) for track, n in ((3, 5), (8, 2), (1, 4)) for i in range(n)]
    assert most_seen_tracks(faces, 2) == [1, 3]


def test_the_video_has_every_frame_of_the_source(tmp_path: Path) -> None:
    assert annotate(frames(12), tmp_path / "a.mp4", [face(3)]) == 12
    assert len(read_video(tmp_path / "a.mp4")) == 12


def test_a_face_is_drawn_on_its_own_frame_only(tmp_path: Path) -> None:
    annotate(frames(6), tmp_path / "a.mp4", [face(3, "anger")])
    spread = [float(image.std()) for image in read_video(tmp_path / "a.mp4")]
    assert spread[3] > 5 * max(spread[:3])


def test_pictures_of_several_sizes_make_one_video(tmp_path: Path) -> None:
    mixed = [*frames(1), *frames(1, 301, 77), *frames(1, 64, 640)]
    pictures = [replace(picture, index=index) for index, picture in enumerate(mixed)]
    assert annotate(pictures, tmp_path / "a.mp4", [face(index) for index in range(3)]) == 3
    assert len({image.shape for image in read_video(tmp_path / "a.mp4")}) == 1


def test_a_source_without_frames_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError):
        annotate([], tmp_path / "a.mp4", [])


def test_the_frame_rate_comes_from_the_times() -> None:
    assert frame_rate(list(frames(2))) == pytest.approx(30)
    assert frame_rate(list(frames(1))) == 25


def test_the_tally_counts_bytes_and_the_rate_on_the_wire() -> None:
    times = iter([0.0, 1.0, 5.0, 6.0])
    tally = Tally(lambda: next(times))
    assert tally.payload_bytes_per_face is None
    assert tally.wire_bytes_per_s is None
    for frame, wire_bytes in enumerate((100, 400, 1000, 1500)):
        tally.add(face(frame))
        tally.wire(wire_bytes)
    assert tally.faces == 4
    assert tally.payload_bytes_per_face == pytest.approx(17.5)
    assert tally.wire_bytes_per_s == pytest.approx(500)


def test_the_largest_face_in_view_comes_first() -> None:
    tally = Tally(lambda: 0.0)
    tally.add(replace(face(0, track_id=9), box=(0, 0, 300, 300)))
    tally.add(face(60, track_id=1))
    tally.add(replace(face(60, track_id=2), box=(0, 0, 80, 80)))
    assert [seen.track_id for seen in tally.in_view()] == [2, 1]


def test_bars_and_sparklines_are_as_long_as_what_they_show() -> None:
    assert bar(0.5, 10) == "█████     "
    assert bar(1.7, 4) == "████"
    tally = Tally(lambda: 0.0)
    for frame in range(50):
        tally.add(face(frame))
    assert sparkline(tally.costs) == "█" * 40


def test_plain_lines_come_on_a_change_and_each_half_second() -> None:
    lines: list[str] = []
    view = PlainView(lines.append)
    tally = Tally(lambda: 0.0)
    with view:
        for frame in range(31):
            seen = face(frame, "surprise" if frame >= 20 else "neutral")
            tally.add(seen)
            view.update(seen, tally)
    assert [line.split()[4] for line in lines] == ["neutral", "neutral", "surprise"]


def test_the_live_picture_names_the_face_its_cost_and_the_others() -> None:
    tally = Tally(lambda: 0.0)
    tally.add(face(3, "fear", track_id=2))
    tally.add(replace(face(3, "happiness", track_id=5), box=(0, 0, 99, 99)))
    written = io.StringIO()
    Console(width=80, file=written).print(picture(tally))
    shown = written.getvalue()
    assert "17.5 B/face" in shown
    assert "face 2" in shown
    assert shown.index("happiness") < shown.index("face 2")


def test_every_expression_has_a_colour_of_its_own() -> None:
    assert len({colour(name) for name in EXPRESSIONS}) == len(EXPRESSIONS)
    assert colour("one that no bundle had yet").startswith("#")
