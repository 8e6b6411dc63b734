import numpy as np
import pytest

from trainer.figures import calibration_error, confusion, macro_f1, per_class, psnr_db

TRUTH = np.array([0, 0, 0, 1, 1, 2])
SAID = np.array([0, 0, 1, 1, 1, 0])


def test_psnr_of_a_known_error() -> None:
    original = np.full((2, 1, 4, 4), 100, np.uint8)
    assert psnr_db(original, original + 10) == pytest.approx([28.13, 28.13], abs=0.01)
    assert psnr_db(original, original).tolist() == [99, 99]


def test_scores_against_counts_by_hand() -> None:
    matrix = confusion(TRUTH, SAID, 4)
    assert matrix.tolist() == [[2, 1, 0, 0], [0, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    rows = per_class(matrix, ["a", "b", "c", "d"])
    assert rows["a"] == {
        "faces": 3,
        "precision": pytest.approx(2 / 3),
        "recall": pytest.approx(2 / 3),
        "f1": pytest.approx(2 / 3),
    }
    assert rows["b"]["f1"] == pytest.approx(0.8)
    assert rows["c"]["f1"] == 0
    # d never occurs, so it does not count.
    assert macro_f1(matrix) == pytest.approx((2 / 3 + 0.8 + 0) / 3)


def test_calibration_error_is_the_gap_between_confidence_and_hits() -> None:
    probabilities = np.tile(np.array([[0.9, 0.1]], np.float32), (10, 1))
    truth = np.array([0] * 7 + [1] * 3)
    assert calibration_error(probabilities, truth) == pytest.approx(0.2, abs=1e-6)
