"""How sure a classifier may be: temperatures, and what validation faces say for the manifest."""

import numpy as np
from numpy.typing import NDArray

from mien.calibration import CONFIDENCE_BINS, Calibration, confidence, confidence_bin

# Below this a probability is 0 in float32's eyes, and its logarithm of no use.
_LEAST = 1e-12


def fit_temperature(logits: NDArray[np.float32], truth: NDArray[np.int64]) -> float:
    """The temperature at which softmax is likeliest (Guo et al., 2017, arXiv:1706.04599).

    logits: (N, K); truth: (N,). Searched between 0.3 and 3 in steps of a percent.
    """
    below_top = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    chosen = below_top[np.arange(len(truth)), truth]
    grid = [0.3 * 1.01**step for step in range(232)]
    losses = [(np.log(np.exp(below_top / t).sum(axis=1)) - chosen / t).mean() for t in grid]
    return grid[int(np.argmin(losses))]


def calibrate(probabilities: NDArray[np.float32], truth: NDArray[np.int64]) -> Calibration:
    """What a bundle's manifest says of its classifier, from answers (N, K) and the truth, (N,)."""
    temperature = fit_temperature(np.log(np.maximum(probabilities, _LEAST)), truth)
    answered = np.bincount(probabilities.argmax(axis=1), minlength=probabilities.shape[1])
    bins = [confidence_bin(value) for value in confidences(probabilities, temperature)]
    counts = np.bincount(bins, minlength=CONFIDENCE_BINS)
    return Calibration(temperature, tuple(answered.tolist()), tuple(counts.tolist()))


def confidences(probabilities: NDArray[np.float32], temperature: float) -> list[float]:
    """The calibrated confidence of each row, exactly as the recognizer computes it."""
    return [confidence(row, temperature) for row in probabilities.tolist()]
