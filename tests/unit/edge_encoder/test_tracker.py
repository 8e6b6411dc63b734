"""Faces keep their ids; detection runs when it must."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from edge_encoder.detector import Detection, Detector
from edge_encoder.detector.base import FACE_SHAPE, Image, iou
from edge_encoder.tracker import MAX_LOST_FRAMES, MAX_UNCONFIRMED, FaceTracker
from tests.support.moving_face import LANDMARKS, Scene, walk

SIDE = 60.0


def face_at(x: float, y: float) -> Detection:
    return Detection((FACE_SHAPE * SIDE + (x, y)).astype(np.float32), 0.9)


@dataclass
class ScriptedDetector:
    """Sees what the script says is in the current frame."""

    faces: list[Detection] = field(default_factory=list)
    visible_to_search: bool = True
    searches: int = 0
    name: str = "scripted"

    def detect(self, image: Image) -> list[Detection]:
        self.searches += 1
        return list(self.faces) if self.visible_to_search else []

    def refine(self, image: Image, face: Detection) -> Detection | None:
        near = [other for other in self.faces if iou(other.box, face.box) > 0.3]
        return max(near, key=lambda other: iou(other.box, face.box), default=None)


PICTURE = Scene().picture(90, 60)


def run(
    tracker: FaceTracker, detector: ScriptedDetector, script: Sequence[Sequence[Detection]]
) -> list[list[int]]:
    """The ids of each frame of the script."""
    ids = []
    for faces in script:
        detector.faces = list(faces)
        ids.append([face.track_id for face in tracker.update(PICTURE)])
    return ids


@pytest.fixture
def scripted() -> ScriptedDetector:
    return ScriptedDetector()


def test_a_moving_face_keeps_its_id(scripted: ScriptedDetector) -> None:
    ids = run(FaceTracker(scripted), scripted, [[face_at(5 * i, 3 * i)] for i in range(40)])
    assert ids == [[0]] * 40


def test_the_frame_is_searched_every_kth_time(scripted: ScriptedDetector) -> None:
    run(FaceTracker(scripted, detect_every=5), scripted, [[face_at(0, 0)]] * 21)
    assert scripted.searches == 5  # frames 0, 5, 10, 15, 20


def test_an_empty_frame_is_no_reason_to_search_more_often(scripted: ScriptedDetector) -> None:
    run(FaceTracker(scripted, detect_every=5), scripted, [[]] * 20)
    assert scripted.searches == 4


def test_a_second_face_gets_the_next_id_at_the_next_search(scripted: ScriptedDetector) -> None:
    one, two = face_at(0, 0), face_at(150, 0)
    ids = run(FaceTracker(scripted, detect_every=3), scripted, [[one], *[[one, two]] * 5])
    assert ids == [[0], [0], [0], [0, 1], [0, 1], [0, 1]]


def test_a_lost_face_is_searched_at_once_and_gets_its_id_back(scripted: ScriptedDetector) -> None:
    here = face_at(50, 50)
    ids = run(
        FaceTracker(scripted, detect_every=10), scripted, [[here], [here], [], [], [here], [here]]
    )
    assert ids == [[0], [0], [], [], [0], [0]]
    assert scripted.searches == 2  # the first frame, and the one it was lost in


def test_a_face_that_jumped_is_found_in_the_same_frame(scripted: ScriptedDetector) -> None:
    ids = run(
        FaceTracker(scripted, detect_every=10), scripted, [[face_at(0, 0)], [face_at(200, 0)]]
    )
    assert [len(frame) for frame in ids] == [1, 1]


def test_after_a_long_absence_the_id_is_not_used_again(scripted: ScriptedDetector) -> None:
    here = face_at(50, 50)
    script = [[here], *[[]] * (MAX_LOST_FRAMES + 1), *[[here]] * 5]
    ids = run(FaceTracker(scripted), scripted, script)
    assert ids[0] == [0]
    assert ids[-1] == [1]


def test_what_searches_never_confirm_is_dropped(scripted: ScriptedDetector) -> None:
    tracker = FaceTracker(scripted, detect_every=1)
    assert run(tracker, scripted, [[face_at(0, 0)]]) == [[0]]
    scripted.visible_to_search = False
    ids = run(tracker, scripted, [[face_at(0, 0)]] * (MAX_UNCONFIRMED + 2))
    assert ids[0] == [0]
    assert ids[-1] == []


def test_two_tracks_on_one_face_become_one(scripted: ScriptedDetector) -> None:
    apart, together = [face_at(0, 0), face_at(40, 0)], [face_at(20, 0)]
    ids = run(FaceTracker(scripted, detect_every=100), scripted, [apart, together, together])
    assert ids == [[0, 1], [0], [0]]


def test_the_largest_faces_are_followed_and_the_others_counted(scripted: ScriptedDetector) -> None:
    small = Detection((FACE_SHAPE * 30 + (0, 0)).astype(np.float32), 0.99)
    tracker = FaceTracker(scripted, detect_every=1, max_faces=2)
    scripted.faces = [small, face_at(100, 0), face_at(200, 0)]
    seen = tracker.update(PICTURE)
    assert [round(float(face.detection.box[2])) for face in seen] == [60, 60]
    assert tracker.ignored == 1


def test_a_cut_ends_every_track(scripted: ScriptedDetector) -> None:
    tracker = FaceTracker(scripted, detect_every=10)
    scripted.faces = [face_at(90, 60)]
    other_scene = Scene(shade=200).picture(90, 60)
    ids = [tracker.update(picture) for picture in (PICTURE, PICTURE, other_scene, other_scene)]
    assert [[face.track_id for face in frame] for frame in ids] == [[0], [0], [1], [1]]


@pytest.mark.parametrize("flat", [0, 128])
def test_a_frame_of_one_grey_is_no_cut(scripted: ScriptedDetector, flat: int) -> None:
    tracker = FaceTracker(scripted, detect_every=10)
    scripted.faces = [face_at(90, 60)]
    grey = np.full_like(PICTURE, flat)
    ids = [tracker.update(picture)[0].track_id for picture in (PICTURE, grey, PICTURE)]
    assert ids == [0, 0, 0]


def test_a_drawn_face_is_followed_with_one_id_and_steady_landmarks(detector: Detector) -> None:
    tracker = FaceTracker(detector, detect_every=5)
    offsets = []
    for index, picture in enumerate(walk(30)):
        (face,) = tracker.update(picture)
        assert face.track_id == 0
        at = LANDMARKS + (30 + 2 * index, 50 + index % 3)
        offsets.append(face.detection.landmarks - at)
    assert tracker.searches == 6
    # Always the same distance from where they were drawn: less than a pixel of 120 moves.
    assert np.std(offsets, axis=0).mean() < 0.7


def test_ids_do_not_depend_on_the_order_of_detections() -> None:
    def ids(order: Callable[[list[Detection]], list[Detection]]) -> list[list[int]]:
        scripted = ScriptedDetector()
        script = [order([face_at(0, i), face_at(150, i)]) for i in range(10)]
        tracker = FaceTracker(scripted, detect_every=1)
        run(tracker, scripted, script[:1])
        return run(tracker, scripted, script[1:])

    assert ids(list) == ids(lambda faces: faces[::-1]) == [[0, 1]] * 9
