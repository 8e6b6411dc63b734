"""Points of one method put together: seeds by rates by faces."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from trainer.compare.deltas import Curve
from trainer.compare.draws import Draws
from trainer.compare.points import Point


@dataclass(frozen=True)
class Gathered:
    """A method over S seeds and R rates; rates that some seed lacks are left out.

    sizes: float64 (S, R, N), bytes. probabilities: float32 (S, R, N, 8).
    psnr_db, ms_ssim: float64 (S, R, N), or None where nothing is reconstructed.
    truth: int64 (N,).
    """

    method: str
    seeds: tuple[int, ...]
    rates: tuple[int, ...]
    sizes: NDArray[np.float64]
    probabilities: NDArray[np.float32]
    psnr_db: NDArray[np.float64] | None
    ms_ssim: NDArray[np.float64] | None
    truth: NDArray[np.int64]

    @cached_property
    def correct(self) -> NDArray[np.bool_]:
        """bool (S, R, N)."""
        return np.asarray(self.probabilities.argmax(axis=-1) == self.truth)

    @property
    def curve(self) -> Curve:
        """Mean bytes and accuracy in points (0 to 100), over faces and seeds."""
        return Curve(self.sizes.mean(axis=(0, 2)), 100 * self.correct.mean(axis=(0, 2)))

    def curve_of_seed(self, seed: int) -> Curve:
        """As curve, of one seed."""
        at = self.seeds.index(seed)
        return Curve(self.sizes[at].mean(axis=1), 100 * self.correct[at].mean(axis=1))

    @property
    def psnr_curve(self) -> Curve | None:
        """Mean bytes and mean dB."""
        if self.psnr_db is None:
            return None
        return Curve(self.sizes.mean(axis=(0, 2)), self.psnr_db.mean(axis=(0, 2)))

    def resampled(self, weights: NDArray[np.float64]) -> Draws:
        """The curve of every resample, from weights (B, N)."""
        return Draws(
            weights @ self.sizes.mean(axis=0).T, 100 * (weights @ self.correct.mean(axis=0).T)
        )

    @property
    def best(self) -> int:
        """Index of the most accurate rate, the cheapest of equals."""
        return int(self.curve.quality.argmax())


def gather(points: Sequence[Point], truth: NDArray[np.int64]) -> dict[str, Gathered]:
    """Points by method. Raises ValueError for other faces than truth's, or no common rate."""
    for point in points:
        if len(point.sizes) != len(truth):
            raise ValueError(
                f"{point.method}.{point.seed}.{point.rate} has {len(point.sizes)} faces, "
                f"the truth {len(truth)}: they are not of the same split"
            )
    methods = sorted({point.method for point in points})
    return {
        name: _gather_one(name, [point for point in points if point.method == name], truth)
        for name in methods
    }


def _gather_one(name: str, points: Sequence[Point], truth: NDArray[np.int64]) -> Gathered:
    found = {(point.seed, point.rate): point for point in points}
    seeds = tuple(sorted({point.seed for point in points}))
    rates = tuple(
        rate
        for rate in sorted({point.rate for point in points})
        if all((seed, rate) in found for seed in seeds)
    )
    if not rates:
        raise ValueError(f"{name} has no rate that all of its seeds {seeds} have")
    table = [[found[seed, rate] for rate in rates] for seed in seeds]

    def stacked(field: str) -> NDArray[np.float64] | None:
        values = [[getattr(point, field) for point in row] for row in table]
        complete = all(len(value) for row in values for value in row)
        return np.array(values, dtype=np.float64) if complete else None

    return Gathered(
        name,
        seeds,
        rates,
        np.array([[point.sizes for point in row] for row in table], dtype=np.float64),
        np.array([[point.probabilities for point in row] for row in table]),
        stacked("psnr_db"),
        stacked("ms_ssim"),
        truth,
    )
