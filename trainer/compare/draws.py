"""The deltas of trainer.compare.deltas for thousands of resampled curves at once.

Values come from the `bjontegaard` package; its one curve at a time would take minutes for the
intervals. This is the same PCHIP (Fritsch and Butland, SIAM J. Sci. Stat. Comput. 5, 1984, with
scipy's ends) over a batch, and a test holds it to the package.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Draws:
    """A resampled curve in every row. sizes: (B, R), mean bytes. quality: (B, R)."""

    sizes: Array
    quality: Array


def bd_rate_draws(anchor: Draws, test: Draws) -> Array:
    """bd_rate of every resample, (B,), percent; NaN where the curves do not overlap."""
    first, second = _fronts(anchor), _fronts(test)
    return np.asarray(100 * np.expm1(_mean_gap(_swapped(first), _swapped(second))))


def bd_quality_draws(anchor: Draws, test: Draws) -> Array:
    """bd_quality of every resample, (B,), units of quality; NaN where there is no overlap."""
    return _mean_gap(_functions(anchor), _functions(test))


@dataclass(frozen=True)
class _Functions:
    """y over x in every row, (B, R), x rising; only the first count of (B,) are valid."""

    x: Array
    y: Array
    count: NDArray[np.int64]


def _fronts(draws: Draws) -> _Functions:
    log_sizes, quality = _sorted(draws)
    before = np.maximum.accumulate(quality, axis=1)[:, :-1]
    keep = np.ones(quality.shape, dtype=bool)
    keep[:, 1:] = quality[:, 1:] > before
    return _compact(log_sizes, quality, keep)


def _functions(draws: Draws) -> _Functions:
    log_sizes, quality = _sorted(draws)
    keep = np.diff(log_sizes, axis=1, prepend=-np.inf) > 0
    return _compact(log_sizes, quality, keep)


def _sorted(draws: Draws) -> tuple[Array, Array]:
    # Of equal sizes the best comes first, as in deltas.
    order = np.lexsort((-draws.quality, draws.sizes), axis=1)
    sizes = np.take_along_axis(draws.sizes, order, axis=1)
    return np.log(sizes), np.take_along_axis(draws.quality, order, axis=1)


def _compact(x: Array, y: Array, keep: NDArray[np.bool_]) -> _Functions:
    order = np.argsort(~keep, axis=1, kind="stable")
    return _Functions(
        np.take_along_axis(x, order, axis=1),
        np.take_along_axis(y, order, axis=1),
        keep.sum(axis=1),
    )


def _swapped(functions: _Functions) -> _Functions:
    return _Functions(functions.y, functions.x, functions.count)


def _mean_gap(anchor: _Functions, test: _Functions) -> Array:
    """Mean of test minus anchor over the x that they share, (B,)."""
    low = np.maximum(anchor.x[:, 0], test.x[:, 0])
    high = np.minimum(_last(anchor), _last(test))
    area = _integral(test, low, high) - _integral(anchor, low, high)
    return np.where(high > low, area / np.where(high > low, high - low, 1.0), np.nan)


def _last(functions: _Functions) -> Array:
    last: Array = functions.x[np.arange(len(functions.x)), functions.count - 1]
    return last


def _integral(functions: _Functions, low: Array, high: Array) -> Array:
    area = np.full(len(low), np.nan)
    for rows, count in _by_count(functions):
        x, y = functions.x[rows, :count], functions.y[rows, :count]
        slopes = pchip_slopes(x, y)
        area[rows] = _area_up_to(x, y, slopes, high[rows]) - _area_up_to(x, y, slopes, low[rows])
    return area


def _by_count(functions: _Functions) -> Iterator[tuple[NDArray[np.int64], int]]:
    for count in np.unique(functions.count):
        if count > 1:
            yield np.flatnonzero(functions.count == count), int(count)


def _area_up_to(x: Array, y: Array, slopes: Array, end: Array) -> Array:
    """Integral of the cubic Hermite pieces from the first x to end, for x, y (B, R)."""
    h = np.diff(x, axis=1)
    t = np.clip((end[:, None] - x[:, :-1]) / h, 0, 1)
    pieces = (
        y[:, :-1] * (t - t**3 + t**4 / 2)
        + y[:, 1:] * (t**3 - t**4 / 2)
        + h * slopes[:, :-1] * (t**2 / 2 - 2 * t**3 / 3 + t**4 / 4)
        + h * slopes[:, 1:] * (t**4 / 4 - t**3 / 3)
    )
    return np.asarray((h * pieces).sum(axis=1))


def pchip_slopes(x: Array, y: Array) -> Array:
    """Slopes (B, R) at the knots: weighted harmonic means, 0 where the data turn."""
    h = np.diff(x, axis=1)
    rise = np.diff(y, axis=1) / h
    if rise.shape[1] == 1:
        return np.repeat(rise, 2, axis=1)
    slopes = np.zeros(x.shape)
    left, right = 2 * h[:, 1:] + h[:, :-1], h[:, 1:] + 2 * h[:, :-1]
    same = rise[:, :-1] * rise[:, 1:] > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = (left + right) / (left / rise[:, :-1] + right / rise[:, 1:])
    slopes[:, 1:-1] = np.where(same, mean, 0)
    slopes[:, 0] = _end_slope(h[:, 0], h[:, 1], rise[:, 0], rise[:, 1])
    slopes[:, -1] = _end_slope(h[:, -1], h[:, -2], rise[:, -1], rise[:, -2])
    return slopes


def _end_slope(h: Array, next_h: Array, rise: Array, next_rise: Array) -> Array:
    slope = ((2 * h + next_h) * rise - h * next_rise) / (h + next_h)
    steep = (np.sign(rise) != np.sign(next_rise)) & (np.abs(slope) > 3 * np.abs(rise))
    slope = np.where(steep, 3 * rise, slope)
    return np.where(np.sign(slope) != np.sign(rise), 0, slope)
