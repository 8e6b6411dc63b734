import numpy as np
import pytest

from trainer.beyond import same_face_auc
from trainer.fresh_head import accuracy, correlation


def test_rows_of_the_same_face_are_found_and_noise_is_chance() -> None:
    random = np.random.default_rng(0)
    faces = random.normal(0, 1, (200, 30)).astype(np.float32)
    near = faces + random.normal(0, 0.5, faces.shape).astype(np.float32)
    assert same_face_auc(faces, near) > 0.99
    assert same_face_auc(faces, random.permuted(faces, axis=0)) == pytest.approx(0.5, abs=0.05)
    assert same_face_auc(np.ones((9, 4), np.float32), np.ones((9, 4), np.float32)) == 0.5


def test_a_head_learns_what_is_there_and_nothing_where_there_is_nothing() -> None:
    random = np.random.default_rng(1)
    rows = random.normal(0, 1, (1500, 10)).astype(np.float32)
    truth = (0.6 + 0.1 * rows[:, 3]).astype(np.float32)
    assert correlation(rows[:1000], rows[1000:], truth[:1000], truth[1000:]) > 0.6
    noise = random.permutation(truth).astype(np.float32)
    assert abs(correlation(rows[:1000], rows[1000:], noise[:1000], truth[1000:])) < 0.3


def test_a_head_learns_classes_that_are_there() -> None:
    random = np.random.default_rng(2)
    rows = random.normal(0, 1, (1500, 10)).astype(np.float32)
    classes = (rows[:, 2] > 0).astype(np.int64) + (rows[:, 5] > 0)
    assert accuracy(rows[:1000], rows[1000:], classes[:1000], classes[1000:]) > 0.75
    noise = random.permutation(classes)
    assert accuracy(rows[:1000], rows[1000:], noise[:1000], classes[1000:]) < 0.65
