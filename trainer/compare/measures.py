"""The figures of one method, rate by rate, as they stand in results.json.

Accuracies are shares (0 to 1) here; differences and deltas are in points (hundredths).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.compare.deltas import quality_at
from trainer.compare.gathered import Gathered
from trainer.compare.methods import method
from trainer.compare.statistics import interval
from trainer.data.faces import EXPRESSIONS
from trainer.figures import calibration_error, confusion, macro_f1, per_class

# What a user can spend on a face: accuracies are interpolated there.
BYTE_BUDGETS = (32, 64, 128, 256, 512)
RELIABILITY_BINS = 15


def figures_of(gathered: Gathered, weights: NDArray[np.float64]) -> dict[str, Any]:
    """A method's section of the results: every rate, and the best one in detail."""
    at_budget = {str(size): quality_at(gathered.curve, size) for size in BYTE_BUDGETS}
    return {
        "label": method(gathered.method).label,
        "seeds": list(gathered.seeds),
        "rates": [_rate(gathered, index, weights) for index in range(len(gathered.rates))],
        "accuracy_at_bytes": {
            size: None if points is None else points / 100 for size, points in at_budget.items()
        },
        "best_rate": _detail(gathered, gathered.best),
    }


def _rate(gathered: Gathered, index: int, weights: NDArray[np.float64]) -> dict[str, Any]:
    correct = gathered.correct[:, index]
    sizes = gathered.sizes[:, index].mean(axis=1)
    scores = _scores_by_seed(gathered, index)
    return {
        "rate": gathered.rates[index],
        "bytes": float(sizes.mean()),
        "bytes_of_seeds": _spread(sizes),
        "accuracy": float(correct.mean()),
        "accuracy_of_seeds": _spread(correct.mean(axis=1)),
        "accuracy_interval": interval(weights @ correct.mean(axis=0)),
        "macro_f1": float(np.mean([score for score, _ in scores])),
        "calibration_error": float(np.mean([error for _, error in scores])),
        "psnr_db": _mean_at(gathered.psnr_db, index),
        "ms_ssim": _mean_at(gathered.ms_ssim, index),
    }


def _scores_by_seed(gathered: Gathered, index: int) -> list[tuple[float, float]]:
    return [
        (
            macro_f1(confusion(gathered.truth, one.argmax(axis=1), len(EXPRESSIONS))),
            calibration_error(one, gathered.truth),
        )
        for one in gathered.probabilities[:, index]
    ]


def _detail(gathered: Gathered, index: int) -> dict[str, Any]:
    """Confusion and calibration of one rate; the seeds' counts are averaged."""
    seeds = len(gathered.seeds)
    pooled = gathered.probabilities[:, index].reshape(-1, gathered.probabilities.shape[-1])
    truth = np.tile(gathered.truth, seeds)
    matrix = confusion(truth, pooled.argmax(axis=1), len(EXPRESSIONS))
    classes = per_class(matrix, EXPRESSIONS)
    for row in classes.values():
        row["faces"] = round(row["faces"] / seeds)
    return {
        "rate": gathered.rates[index],
        "bytes": float(gathered.sizes[:, index].mean()),
        "accuracy": float(gathered.correct[:, index].mean()),
        "confusion": (matrix / seeds).tolist(),
        "per_class": classes,
        "reliability": _reliability(pooled, truth),
    }


def _reliability(
    probabilities: NDArray[np.float32], truth: NDArray[np.int64]
) -> dict[str, list[float]]:
    """Mean confidence, accuracy and share of the faces in each bin that has any."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    correct = probabilities.argmax(axis=1) == truth
    bins = np.minimum((confidence * RELIABILITY_BINS).astype(int), RELIABILITY_BINS - 1)
    used = np.unique(bins)
    return {
        "confidence": [float(confidence[bins == b].mean()) for b in used],
        "accuracy": [float(correct[bins == b].mean()) for b in used],
        "share": [float((bins == b).mean()) for b in used],
    }


def _mean_at(values: NDArray[np.float64] | None, index: int) -> float | None:
    return None if values is None else float(values[:, index].mean())


def _spread(of_seeds: NDArray[np.float64]) -> list[float]:
    return [float(of_seeds.min()), float(of_seeds.max())]
