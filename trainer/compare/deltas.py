"""Bjøntegaard deltas over accuracy (or dB), by the `bjontegaard` package.

G. Bjøntegaard, "Calculation of average PSNR differences between RD-curves", VCEG-M33, 2001;
C. Herglotz et al., "Beyond Bjøntegaard", arXiv:2202.12565, on PCHIP and Akima, whose authors
also publish the package. Rates are the mean coded bytes of a face, interpolated as logarithms.

Two directions, and only one of them needs a monotone curve:

- BD-accuracy averages accuracy over the common range of log bytes. Accuracy is a function of
  bytes whether it rises or not, and so every measured rate counts.
- BD-rate averages log bytes over the common range of accuracies, and needs bytes as a function of
  accuracy. Measured accuracies wobble, most where the curve is flat, so only the **Pareto front**
  of either curve enters: the rates that no cheaper one equals or beats. It is what a user of the
  curve would pick from. It makes no value up, as smoothing would; it does favour a noisy curve a
  little, which is why it is done to anchor and test alike and inside every bootstrap resample.
"""

from dataclasses import dataclass
from typing import Literal

import bjontegaard
import numpy as np
from numpy.typing import NDArray

Interpolation = Literal["pchip", "akima"]
NO_OVERLAP = "the curves do not overlap"
TOO_FEW = "a curve of one rate has no delta"


@dataclass(frozen=True)
class Curve:
    """sizes: float64 (R,), mean bytes a face. quality: float64 (R,), more is better."""

    sizes: NDArray[np.float64]
    quality: NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.sizes.ndim != 1 or self.sizes.shape != self.quality.shape:
            raise ValueError(f"sizes {self.sizes.shape} and quality {self.quality.shape} differ")
        if not (self.sizes > 0).all():
            raise ValueError(f"bytes must be above 0: {self.sizes}")


@dataclass(frozen=True)
class Delta:
    """value: percent of bytes, or units of quality; None where there is none, with the reason.

    low, high: what the curves have in common, in bytes or in units of quality.
    share: of the range that the two span together (of log bytes, or of quality), 0 to 1.
    """

    value: float | None
    low: float
    high: float
    share: float
    reason: str = ""


def pareto_front(curve: Curve) -> Curve:
    """The rates that no cheaper rate equals or beats, cheapest first; strictly rising in both."""
    # Of equal sizes the best comes first, so that the others are beaten by it.
    order = np.lexsort((-curve.quality, curve.sizes))
    quality = curve.quality[order]
    best_before = np.concatenate([[-np.inf], np.maximum.accumulate(quality)[:-1]])
    keep = order[quality > best_before]
    return Curve(curve.sizes[keep], curve.quality[keep])


def bd_rate(anchor: Curve, test: Curve, how: Interpolation = "pchip") -> Delta:
    """Percent of bytes that test needs more (or, below 0, less) than anchor for equal quality."""
    anchor, test = pareto_front(anchor), pareto_front(test)
    low, high, share = _overlap(anchor.quality, test.quality)
    if reason := _why_none(anchor, test, share):
        return Delta(None, low, high, share, reason)
    value = bjontegaard.bd_rate(
        *(anchor.sizes, anchor.quality, test.sizes, test.quality),
        method=how,
        require_matching_points=False,
        min_overlap=0,
    )
    return Delta(float(value), low, high, share)


def bd_quality(anchor: Curve, test: Curve, how: Interpolation = "pchip") -> Delta:
    """Quality that test has more than anchor for equal bytes, in the curves' own unit."""
    anchor, test = _by_size(anchor), _by_size(test)
    low, high, share = _overlap(np.log(anchor.sizes), np.log(test.sizes))
    low, high = float(np.exp(low)), float(np.exp(high))
    if reason := _why_none(anchor, test, share):
        return Delta(None, low, high, share, reason)
    value = bjontegaard.bd_psnr(
        *(anchor.sizes, anchor.quality, test.sizes, test.quality),
        method=how,
        require_matching_points=False,
        min_overlap=0,
    )
    return Delta(float(value), low, high, share)


def quality_at(curve: Curve, size: float) -> float | None:
    """Quality at this many bytes, by PCHIP over log bytes; None outside what was measured."""
    curve = _by_size(curve)
    if len(curve.sizes) < 2 or not curve.sizes[0] <= size <= curve.sizes[-1]:
        return None
    interpolate = bjontegaard.interpolation.interpolate_pchip
    return float(interpolate(np.log(curve.sizes), curve.quality)(np.log(size)))


def size_for(curve: Curve, quality: float) -> tuple[float, bool] | None:
    """Bytes for this quality on the Pareto front, by PCHIP over log bytes.

    None where the curve never gets there. Where even its cheapest rate is better, that rate's
    bytes, and True: they are an upper bound.
    """
    front = pareto_front(curve)
    if front.quality[0] >= quality:
        return float(front.sizes[0]), bool(front.quality[0] > quality)
    if front.quality[-1] < quality:
        return None
    interpolate = bjontegaard.interpolation.interpolate_pchip
    return float(np.exp(interpolate(front.quality, np.log(front.sizes))(quality))), False


def _by_size(curve: Curve) -> Curve:
    """Cheapest first; of equal sizes the best, for a function has one value."""
    order = np.lexsort((-curve.quality, curve.sizes))
    keep = order[np.diff(curve.sizes[order], prepend=-np.inf) > 0]
    return Curve(curve.sizes[keep], curve.quality[keep])


def _overlap(anchor: NDArray[np.float64], test: NDArray[np.float64]) -> tuple[float, float, float]:
    low, high = max(anchor.min(), test.min()), min(anchor.max(), test.max())
    whole = max(anchor.max(), test.max()) - min(anchor.min(), test.min())
    return float(low), float(high), float(max(high - low, 0) / whole) if whole else 0.0


def _why_none(anchor: Curve, test: Curve, share: float) -> str:
    if min(len(anchor.sizes), len(test.sizes)) < 2:
        return TOO_FEW
    return "" if share else NO_OVERLAP
