"""The tables of the report."""

from collections.abc import Mapping
from typing import Any

from trainer.compare.methods import UNCOMPRESSED, method
from trainer.compare.words import (
    NONE,
    number,
    percent,
    seeds_span,
    share_span,
    signed,
    span,
    table,
)

Results = Mapping[str, Any]


def target_table(results: Results, names: Mapping[str, str]) -> str:
    """What was asked, what came, and whether it is enough."""
    rows = [
        [
            names[row["what"]],
            f"{'≤' if row['is_at_most'] else '≥'} {_target(row, row['target'])}",
            _target(row, row["value"]),
            NONE if not row["interval"] else " … ".join(_target(row, x) for x in row["interval"]),
            {True: "yes", False: "**no**", None: NONE}[row["met"]],
        ]
        for row in results["targets"]
    ]
    return table(["", "target", "measured", "interval", "met"], rows)


def kept_back_table(results: Results, names: Mapping[str, str]) -> str:
    """The same targets on both sets of faces."""
    again = results["kept_back"]["targets"]
    rows = [
        [names[row["what"]], _target(row, first["value"]), _target(row, row["value"])]
        + [NONE if not row["interval"] else " … ".join(_target(row, x) for x in row["interval"])]
        for first, row in zip(results["targets"], again, strict=True)
        if not row["what"].startswith("training")
    ]
    return table(["", "on the faces above", "on these", "interval"], rows)


def _target(row: Results, value: float | None) -> str:
    if row["what"].endswith("percent"):
        return signed(value, 2, "%")
    if row["what"].endswith("points"):
        return signed(value)
    return percent(value) if row["what"].endswith("accuracy") else number(value)


def delta_table(results: Results) -> str:
    """Every method of several rates against the anchor."""
    head = ["", "BD-rate", "interval", "seeds", "Akima", "BD-accuracy", "interval", "seeds"]
    head += ["BD-PSNR, dB", "bytes for the anchor's best", "common accuracies", "common bytes"]
    rows = [
        _delta_row(name, deltas)
        for name, deltas in results["against_anchor"].items()
        if len(results["methods"][name]["rates"]) > 1
    ]
    return table(head, rows)


def _delta_row(name: str, deltas: Results) -> list[str]:
    rate, accuracy = deltas["bd_rate_percent"], deltas["bd_accuracy_points"]
    return [
        method(name).label,
        signed(rate["value"], 1, "%"),
        span(rate.get("interval"), 1, "%"),
        seeds_span(rate, 1, "%"),
        signed(rate.get("akima"), 1, "%"),
        signed(accuracy["value"]),
        span(accuracy.get("interval")),
        seeds_span(accuracy),
        signed(deltas["bd_psnr_db"], 1),
        _at_best(deltas["at_anchors_best"]),
        _overlap(rate, "accuracy_points", "%", 1),
        _overlap(accuracy, "bytes", " B", 0),
    ]


def _at_best(found: Results) -> str:
    if found["bytes"] is None:
        return "not reached"
    bound = "≤ " if found["is_upper_bound"] else ""
    return f"{bound}{number(found['bytes'], 0)} of {number(found['anchor_bytes'], 0)}"


def _overlap(delta: Results, unit: str, suffix: str, digits: int) -> str:
    overlap = delta["overlap"]
    if not overlap["share"]:
        return "none"
    low, high = (number(end, digits) for end in overlap[unit])
    return f"{low}–{high}{suffix} ({percent(overlap['share'], 0)})"


def budget_table(results: Results) -> str:
    """Accuracy of every method at some budgets."""
    several = {n: f for n, f in results["methods"].items() if len(f["rates"]) > 1}
    sizes = list(next(iter(several.values()))["accuracy_at_bytes"]) if several else []
    rows = [
        [method(name).label, *(percent(figures["accuracy_at_bytes"][size]) for size in sizes)]
        for name, figures in several.items()
    ]
    return table(["", *(f"{size} B" for size in sizes)], rows)


def same_codec_table(results: Results) -> str:
    """Accuracy that the adapted classifier has more, a row for each codec and a column a rate."""
    gaps: dict[str, dict[int, str]] = {}
    for row in results["differences"]:
        if row["against"] != UNCOMPRESSED:
            low, high = row["interval"]
            bold = "**" if low > 0 or high < 0 else ""
            gaps.setdefault(row["method"], {})[row["rate"]] = f"{bold}{signed(row['points'])}{bold}"
    rates = sorted({rate for row in gaps.values() for rate in row})
    rows = [
        [method(name).label, *(row.get(rate, NONE) for rate in rates)] for name, row in gaps.items()
    ]
    return table(["", *(f"rate {rate}" for rate in rates)], rows) if rows else ""


def class_table(results: Results) -> str:
    """F1 of every expression, at each method's most accurate rate."""
    expressions = results["expressions"]
    head = ["", "bytes", "accuracy", "against uncompressed, points", "macro-F1", "ECE"]
    against = {r["method"]: r for r in results["differences"] if r["against"] == UNCOMPRESSED}
    rows = []
    for name, figures in results["methods"].items():
        best = figures["best_rate"]
        rate = next(row for row in figures["rates"] if row["rate"] == best["rate"])
        scores = [f"{best['per_class'][expression]['f1']:.2f}" for expression in expressions]
        rows.append(
            [
                method(name).label,
                number(best["bytes"], 0),
                percent(best["accuracy"]),
                f"{signed(against[name]['points'])} ({span(against[name]['interval'])})"
                if name in against
                else NONE,
                f"{rate['macro_f1']:.3f}",
                f"{rate['calibration_error']:.3f}",
                *scores,
            ]
        )
    return table([*head, *expressions], rows)


def rate_table(results: Results) -> str:
    """Every method at every rate."""
    head = ["", "rate", "bytes", "accuracy", "interval", "seeds", "macro-F1", "ECE"]
    rows = [
        [
            method(name).label,
            str(rate["rate"]),
            number(rate["bytes"]),
            percent(rate["accuracy"]),
            share_span(rate["accuracy_interval"]),
            share_span(rate["accuracy_of_seeds"]) if len(figures["seeds"]) > 1 else NONE,
            f"{rate['macro_f1']:.3f}",
            f"{rate['calibration_error']:.3f}",
            number(rate["psnr_db"]),
            number(rate["ms_ssim"], 3),
        ]
        for name, figures in results["methods"].items()
        for rate in figures["rates"]
    ]
    return table([*head, "PSNR, dB", "MS-SSIM"], rows)


def grid_table(results: Results) -> str:
    """The grid as it was given, one row a run."""
    keys = list(dict.fromkeys(key for row in results["grid"] for key in row))
    rows = [[_cell(row.get(key)) for key in keys] for row in results["grid"]]
    return table([key.replace("_", " ") for key in keys], rows)


def run_table(results: Results) -> str:
    """Stages, seeds and hours, and their sum over the stages of the pipeline."""
    if not results["runs"]:
        return ""
    rows = [
        [
            str(run["stage"]),
            str(run.get("seed", NONE)),
            number(float(run["wall_s"]) / 3600, 2),
            "yes" if run.get("in_pipeline", True) else "no",
        ]
        for run in results["runs"]
    ]
    total = f"Every stage of the pipeline once: {number(results['training_hours'], 2)} hours."
    return table(["stage", "seed", "hours", "of the pipeline"], rows) + f"\n\n{total}"


def _cell(value: Any) -> str:
    if value is None:
        return NONE
    return f"{value:g}".replace("-", "−") if isinstance(value, int | float) else str(value)
