"""The temperature that the trainer fits, and what it counts."""

import numpy as np
import pytest
import torch

from trainer.calibration import calibrate, fit_temperature

# Ten faces of odds 9 to 1, of which seven are right: the likeliest confidence is 0.7, and
# log 9 / T = log (7 / 3).
SAID = np.tile(np.array([[0.9, 0.1]], np.float32), (10, 1))
TRUTH = np.array([0] * 7 + [1] * 3)


def test_the_temperature_brings_confidence_down_to_the_share_that_is_right() -> None:
    calibration = calibrate(SAID, TRUTH)
    assert calibration.temperature == pytest.approx(np.log(9) / np.log(7 / 3), rel=0.005)
    assert calibration.expressions == (10, 0)
    # 0.9 as it is would be in the last bin; 0.7, give or take a step of the search, is not.
    assert calibration.confidences[9] == 0
    assert calibration.confidences[6] + calibration.confidences[7] == 10


def test_a_probability_of_zero_is_no_infinite_loss() -> None:
    certain = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]], np.float32)
    calibration = calibrate(certain, np.array([0, 1, 1]))
    assert calibration.temperature == pytest.approx(2.99, abs=0.01)  # as far as the search goes
    assert calibration.expressions == (2, 1)


def test_the_temperature_is_the_likeliest_of_torchs_cross_entropy() -> None:
    random = np.random.default_rng(0)
    truth = random.integers(0, 8, 400)
    logits = (1.5 * random.normal(size=(400, 8)) + 3 * np.eye(8)[truth]).astype(np.float32)
    fitted = fit_temperature(logits, truth)

    def loss(temperature: float) -> float:
        scaled = torch.from_numpy(logits).double() / temperature
        return float(torch.nn.functional.cross_entropy(scaled, torch.from_numpy(truth)))

    assert 0.35 < fitted < 2.5, "inside of what is searched"
    assert loss(fitted) <= min(loss(fitted * 1.01), loss(fitted / 1.01))
