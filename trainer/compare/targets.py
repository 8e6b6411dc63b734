"""What was to be reached, and whether it was."""

from collections.abc import Mapping, Sequence
from typing import Any

# Li et al., ICIP 2025, arXiv:2509.17262, on AffectNet: the codec alone, codec and classifier.
PAPER = {
    "finetuned": {"bd_rate_percent": -49.32, "bd_accuracy_points": 0.71},
    "joint": {"bd_rate_percent": -89.12, "bd_accuracy_points": 4.04},
}
PIXEL_ACCURACY = 0.83
LOSS_ON_UNCOMPRESSED_POINTS = -0.5
TRAINING_HOURS = 8.0


def targets(
    methods: Mapping[str, Any],
    against: Mapping[str, Any],
    differences: Sequence[Mapping[str, Any]],
    training_hours: float | None,
) -> list[dict[str, Any]]:
    """One row each: what, target, measured, met. met is None where nothing was measured."""
    rows = []
    for name, paper in PAPER.items():
        for figure, target in paper.items():
            found = against.get(name, {}).get(figure, {})
            rows.append(_row(f"{name}: {figure}", target, found, at_most="rate" in figure))
    pixel = methods.get("uncompressed", {}).get("rates", [{}])[0]
    found = {"value": pixel.get("accuracy"), "interval": pixel.get("accuracy_interval")}
    rows.append(_row("uncompressed: accuracy", PIXEL_ACCURACY, found))
    kept = next((row for row in differences if row["method"] == "joint-on-uncompressed"), {})
    found = {"value": kept.get("points"), "interval": kept.get("interval")}
    rows.append(_row("joint-on-uncompressed: points", LOSS_ON_UNCOMPRESSED_POINTS, found))
    found = {"value": training_hours}
    rows.append(_row("training: hours", TRAINING_HOURS, found, at_most=True))
    return rows


def _row(
    what: str, target: float, found: Mapping[str, Any], at_most: bool = False
) -> dict[str, Any]:
    value, interval = found.get("value"), found.get("interval")
    sign = -1 if at_most else 1
    row = {
        "what": what,
        "target": target,
        "is_at_most": at_most,
        "value": value,
        "interval": interval,
        "met": None if value is None else sign * value >= sign * target,
    }
    if reason := found.get("reason"):
        row["reason"] = reason
    if interval is not None:
        # The bad end of the interval: met beyond what other faces could change.
        row["met_by_whole_interval"] = min(sign * end for end in interval) >= sign * target
    return row
