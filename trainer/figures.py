"""Figures of merit, as they are reported everywhere."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def psnr_db(original: NDArray[np.uint8], reconstruction: NDArray[np.uint8]) -> NDArray[np.float64]:
    """PSNR of each face, dB, for uint8 (N, C, H, W); an exact copy counts as 99 dB."""
    error = original.astype(np.float64) - reconstruction.astype(np.float64)
    mse = np.maximum((error**2).mean(axis=(1, 2, 3)), 255**2 * 10**-9.9)
    return np.asarray(10 * np.log10(255**2 / mse))


def confusion(truth: NDArray[np.int64], said: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Counts (classes, classes): row the truth, column what was said."""
    return np.bincount(truth * classes + said, minlength=classes**2).reshape(classes, classes)


def per_class(matrix: NDArray[np.int64], names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Faces, precision, recall and F1 of every class; 0 where nothing was said or true."""
    hits = np.diag(matrix).astype(np.float64)
    precision = hits / np.maximum(matrix.sum(axis=0), 1)
    recall = hits / np.maximum(matrix.sum(axis=1), 1)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return {
        name: {
            "faces": int(matrix[index].sum()),
            "precision": float(precision[index]),
            "recall": float(recall[index]),
            "f1": float(f1[index]),
        }
        for index, name in enumerate(names)
    }


def macro_f1(matrix: NDArray[np.int64]) -> float:
    """F1 averaged over the classes that occur in the truth."""
    present = matrix.sum(axis=1) > 0
    scores = per_class(matrix, [str(index) for index in range(len(matrix))])
    return float(np.mean([scores[str(i)]["f1"] for i in np.flatnonzero(present)]))


def calibration_error(
    probabilities: NDArray[np.float32], truth: NDArray[np.int64], bins: int = 15
) -> float:
    """Expected calibration error (Guo et al., 2017, arXiv:1706.04599), equal-width bins."""
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == truth
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        abs(correct[which == b].mean() - confidence[which == b].mean()) * (which == b).sum()
        for b in range(bins)
        if (which == b).any()
    ]
    return float(sum(gaps) / len(truth))
