"""What a bundle's base layer saves against every method of a study, at the accuracy of each.

A Bjøntegaard delta needs curves that overlap; where the cheapest level of a bundle is more accurate
than a method ever is, there is none. So for every rate of a method's Pareto front that the bundle
reaches at all: the bundle's cheapest level that is at least as accurate, and the mean of the ratio
of bytes, in logarithms as BD-rate takes it. That level is more accurate, so the saving is a lower
bound.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mien.bundle import load_bundle
from trainer.compare.deltas import Curve, pareto_front


@dataclass(frozen=True)
class Saving:
    """percent: of bytes, negative for fewer; None where the bundle reaches no rate of the method.

    rates: how many of the method's front are compared, of how many.
    """

    label: str
    percent: float | None
    rates: tuple[int, int]


def savings(bundle: Path, results: Path) -> list[Saving]:
    """Of each method in a study's results.json, in its order. Raises BundleError."""
    levels = load_bundle(bundle, []).manifest.figures["levels"]
    ours = pareto_front(
        Curve(
            np.array([level["payload_bytes_per_face"] for level in levels]),
            np.array([level["accuracy"] for level in levels]),
        )
    )
    methods = json.loads((results / "results.json").read_text())["methods"]
    return [_saving(method, ours) for method in methods.values()]


def _saving(method: dict[str, Any], ours: Curve) -> Saving:
    front = pareto_front(
        Curve(
            np.array([rate["bytes"] for rate in method["rates"]]),
            np.array([rate["accuracy"] for rate in method["rates"]]),
        )
    )
    reached = front.quality <= ours.quality.max()
    ratios = [
        np.log(ours.sizes[ours.quality >= quality].min() / size)
        for size, quality in zip(front.sizes[reached], front.quality[reached], strict=True)
    ]
    percent = 100 * (float(np.exp(np.mean(ratios))) - 1) if ratios else None
    return Saving(method["label"], percent, (len(ratios), len(front.sizes)))


def report(found: list[Saving]) -> str:
    """As a person reads it."""
    width = max(len(saving.label) for saving in found)
    lines = [f"{'against':<{width}}  bytes at its accuracy  rates compared"]
    for saving in found:
        percent = "–" if saving.percent is None else f"{saving.percent:+.1f}%"
        lines.append(
            f"{saving.label:<{width}}  {percent:>21}  {saving.rates[0]} of {saving.rates[1]}"
        )
    return "\n".join(lines)
