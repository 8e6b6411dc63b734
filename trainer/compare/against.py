"""Methods against each other: Bjøntegaard deltas, and differences at single rates."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.compare.deltas import Curve, Delta, bd_quality, bd_rate, pareto_front, size_for
from trainer.compare.draws import Draws, bd_quality_draws, bd_rate_draws
from trainer.compare.gathered import Gathered
from trainer.compare.methods import ANCHOR, UNCOMPRESSED
from trainer.compare.statistics import interval, mcnemar


def against_anchor(
    test: Gathered,
    anchor: Gathered,
    test_draws: Draws,
    anchor_draws: Draws,
) -> dict[str, Any]:
    """BD-rate (percent), BD-accuracy (points), BD-PSNR (dB) and bytes at the anchor's best.

    The value is that of the curves averaged over seeds; "seeds" has every seed's own, against the
    anchor's of the same seed where there is one, else against the anchor's average. The interval
    is over faces, with all seeds in every resample.
    """
    psnr = None
    if anchor.psnr_curve and test.psnr_curve:
        psnr = bd_quality(anchor.psnr_curve, test.psnr_curve).value
    return {
        "bd_rate_percent": _delta(
            *(test, anchor, bd_rate, "accuracy_points"), bd_rate_draws(anchor_draws, test_draws)
        ),
        "bd_accuracy_points": _delta(
            *(test, anchor, bd_quality, "bytes"), bd_quality_draws(anchor_draws, test_draws)
        ),
        "bd_psnr_db": psnr,
        "at_anchors_best": _at_anchors_best(test.curve, anchor.curve),
    }


def _delta(
    test: Gathered,
    anchor: Gathered,
    compare: Callable[..., Delta],
    unit: str,
    draws: NDArray[np.float64],
) -> dict[str, Any]:
    whole = compare(anchor.curve, test.curve)
    overlap = {unit: [whole.low, whole.high], "share": whole.share}
    if whole.value is None:
        # Where the ranges do not meet, low and high are the edges of the gap between them.
        return {"value": None, "reason": whole.reason, "overlap": overlap}
    return {
        "value": whole.value,
        "akima": compare(anchor.curve, test.curve, "akima").value,
        "interval": interval(draws),
        "seeds": {
            str(seed): compare(_anchor_of(anchor, seed), test.curve_of_seed(seed)).value
            for seed in test.seeds
        },
        "overlap": overlap,
    }


def _anchor_of(anchor: Gathered, seed: int) -> Curve:
    return anchor.curve_of_seed(seed) if seed in anchor.seeds else anchor.curve


def _at_anchors_best(test: Curve, anchor: Curve) -> dict[str, Any]:
    front = pareto_front(anchor)
    found = size_for(test, float(front.quality[-1]))
    return {
        "accuracy": float(front.quality[-1]) / 100,
        "anchor_bytes": float(front.sizes[-1]),
        "bytes": found[0] if found else None,
        "is_upper_bound": bool(found and found[1]),
    }


def differences(
    methods: Mapping[str, Gathered], weights: NDArray[np.float64]
) -> list[dict[str, Any]]:
    """Accuracy differences that answer a question, of the pairs that were measured.

    Against uncompressed faces: the best rate of each. Where only the classifier differs, and so
    the bytes are the same: every rate.
    """
    rows = [
        difference(gathered, gathered.best, methods[UNCOMPRESSED], 0, weights)
        for name, gathered in methods.items()
        if UNCOMPRESSED in methods and name != UNCOMPRESSED
    ]
    for adapted, original in _same_bytes(methods):
        first, second = methods[adapted], methods[original]
        for rate in sorted(set(first.rates) & set(second.rates)):
            places = first.rates.index(rate), second.rates.index(rate)
            rows.append(difference(first, places[0], second, places[1], weights))
    return rows


def _same_bytes(methods: Mapping[str, Gathered]) -> list[tuple[str, str]]:
    pairs = [("adapted", ANCHOR), ("joint", "original-on-joint")]
    pairs += [(name, name.removesuffix("-adapted")) for name in methods if "-adapted" in name]
    return [pair for pair in pairs if all(name in methods for name in pair)]


def difference(
    first: Gathered, at: int, second: Gathered, second_at: int, weights: NDArray[np.float64]
) -> dict[str, Any]:
    """Accuracy of first minus that of second in points, averaged over each one's seeds.

    at, second_at: index of the rate. McNemar's test is of single classifiers: one for every seed
    that both have, or for the first of each.
    """
    gap = first.correct[:, at].mean(axis=0) - second.correct[:, second_at].mean(axis=0)
    common = [(seed, seed) for seed in first.seeds if seed in second.seeds]
    return {
        "method": first.method,
        "rate": first.rates[at],
        "against": second.method,
        "against_rate": second.rates[second_at],
        "points": 100 * float(gap.mean()),
        "interval": interval(100 * (weights @ gap)),
        "mcnemar": [
            {"seeds": pair, **vars(_mcnemar(first, at, second, second_at, pair))}
            for pair in common or [(first.seeds[0], second.seeds[0])]
        ],
    }


def _mcnemar(
    first: Gathered, at: int, second: Gathered, second_at: int, seeds: tuple[int, int]
) -> Any:
    return mcnemar(
        first.correct[first.seeds.index(seeds[0]), at],
        second.correct[second.seeds.index(seeds[1]), second_at],
    )
