"""Calibration, confusion, classes and loss weights of results.json as SVG."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trainer.compare.methods import method
from trainer.compare.plots import (
    byte_ticks,
    draw_rate_accuracy,
    draw_rate_ms_ssim,
    draw_rate_psnr,
    save,
)

# The methods that the detailed plots are about, of those that were measured.
SHOWN = ("uncompressed", "pretrained", "finetuned", "joint")
WEIGHTS = ("cross_entropy", "features", "distortion")
OUTCOMES = {
    "accuracy": "accuracy, %",
    "bytes": "bytes a face",
    "psnr_db": "PSNR, dB",
    "bd_rate_percent": "BD-rate, %",
    "bd_accuracy_points": "BD-accuracy, points",
}


def draw_all(out: Path, results: Mapping[str, Any]) -> list[Path]:
    """Write every plot that the results have figures for; the paths written."""
    plots = [
        ("rate-accuracy", draw_rate_accuracy, (11.0, 4.6)),
        ("rate-psnr", draw_rate_psnr, (6.4, 4.2)),
        ("rate-ms-ssim", draw_rate_ms_ssim, (6.4, 4.2)),
        ("calibration", draw_calibration, (9.4, 4.0)),
        ("confusion", draw_confusion, (9.6, 4.6)),
        ("per-class", draw_per_class, (9.4, 3.6)),
    ]
    if results["grid"]:
        columns, rows = len(_levels(results["grid"], _third(results["grid"]))), _outcomes(results)
        plots.append(("loss-weights", draw_grid, (1.4 + 2.9 * columns, 2.5 * len(rows))))
    paths = []
    for name, draw, size in plots:
        save(out / f"{name}.svg", draw, results, size)
        paths.append(out / f"{name}.svg")
    return paths


def draw_calibration(figure: Figure, results: Mapping[str, Any]) -> None:
    """Calibration error over bytes, and how often the classifier is right when so sure."""
    over_bytes, reliability = figure.subplots(1, 2)
    every = [rate["bytes"] for name in _present(results) for rate in _rates(results, name)]
    for name in _present(results):
        shown, figures = method(name), results["methods"][name]
        sizes = [rate["bytes"] for rate in _rates(results, name)]
        errors = [rate["calibration_error"] for rate in _rates(results, name)]
        line = {"color": shown.colour, "marker": shown.marker or "x", "label": shown.label}
        over_bytes.plot(sizes, errors, **line)
        bins = figures["best_rate"]["reliability"]
        reliability.plot(bins["confidence"], bins["accuracy"], **line)
    byte_ticks(over_bytes, every)
    over_bytes.set(xlabel="coded bytes a face", ylabel="calibration error (ECE)")
    over_bytes.set_ylim(bottom=0)
    over_bytes.legend()
    reliability.plot([0, 1], [0, 1], color="#999999", linewidth=1, linestyle="--")
    reliability.set(xlabel="confidence", ylabel="share that was right", xlim=(0, 1), ylim=(0, 1))
    reliability.set_title("at each one's most accurate rate", loc="left", fontsize=9)


def draw_confusion(figure: Figure, results: Mapping[str, Any]) -> None:
    """Uncompressed beside joint: in every row, the share of that truth."""
    names = [name for name in ("uncompressed", "joint") if name in results["methods"]]
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        best = results["methods"][name]["best_rate"]
        counts = np.array(best["confusion"])
        shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1e-9)
        _draw_cells(axes, shares, "{:.0f}", "Blues", (0, 100))
        _name_cells(axes, results["expressions"], results["expressions"])
        axes.set_title(f"{method(name).label}, {best['bytes']:.0f} bytes", loc="left", fontsize=9)
        axes.set(xlabel="named, % of the row", ylabel="true")


def draw_per_class(figure: Figure, results: Mapping[str, Any]) -> None:
    """F1 of every expression at each method's most accurate rate."""
    axes, names = figure.subplots(), _present(results)
    expressions = results["expressions"]
    width = 0.8 / len(names)
    for index, name in enumerate(names):
        rows = results["methods"][name]["best_rate"]["per_class"]
        places = np.arange(len(expressions)) + (index - (len(names) - 1) / 2) * width
        scores = [rows[expression]["f1"] for expression in expressions]
        axes.bar(places, scores, width * 0.92, color=method(name).colour, label=method(name).label)
    faces = results["faces_of_expression"]
    labels = [f"{name}\n{count} faces" for name, count in zip(expressions, faces, strict=True)]
    axes.set_xticks(range(len(labels)), labels)
    axes.set(ylabel="F1", ylim=(0, 1))
    axes.grid(visible=False, axis="x")
    figure.legend(loc="outside upper center", ncols=len(names))


def draw_grid(figure: Figure, results: Mapping[str, Any]) -> None:
    """Heat maps over the loss weights: outcomes downwards, the third weight across."""
    grid, outcomes = results["grid"], _outcomes(results)
    third = _third(grid)
    across, down = [weight for weight in WEIGHTS if weight != third]
    columns = _levels(grid, third)
    panels = figure.subplots(len(outcomes), len(columns), squeeze=False)
    for row, outcome in zip(panels, outcomes, strict=True):
        scale = 100 if outcome == "accuracy" else 1
        tables = [_table(grid, (down, across, third), level, outcome, scale) for level in columns]
        limits = float(np.nanmin(tables)), float(np.nanmax(tables))
        for axes, level, table in zip(row, columns, tables, strict=True):
            _draw_cells(axes, table, "{:.1f}", "cividis", limits)
            _name_cells(axes, _levels(grid, down), _levels(grid, across), upright=True)
            title = f"{OUTCOMES[outcome]}; {third.replace('_', '-')} {level:g}"
            axes.set_title(title, loc="left", fontsize=8)
            axes.set(xlabel=across.replace("_", "-"), ylabel=down.replace("_", "-"))


def _present(results: Mapping[str, Any]) -> list[str]:
    return [name for name in SHOWN if name in results["methods"]]


def _rates(results: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    rates: list[dict[str, Any]] = results["methods"][name]["rates"]
    return rates


def _outcomes(results: Mapping[str, Any]) -> list[str]:
    return [name for name in OUTCOMES if any(name in row for row in results["grid"])]


def _third(grid: Sequence[Mapping[str, Any]]) -> str:
    """The weight with the fewest values goes across the panels."""
    return min(reversed(WEIGHTS), key=lambda weight: len(_levels(grid, weight)))


def _levels(grid: Sequence[Mapping[str, Any]], weight: str) -> list[float]:
    return sorted({float(row.get(weight, 0)) for row in grid})


def _table(
    grid: Sequence[Mapping[str, Any]],
    weights: tuple[str, str, str],
    level: float,
    outcome: str,
    scale: float,
) -> np.ndarray[Any, np.dtype[np.float64]]:
    down, across, third = weights
    rows, columns = _levels(grid, down), _levels(grid, across)
    table = np.full((len(rows), len(columns)), np.nan)
    for run in grid:
        if float(run.get(third, 0)) == level and run.get(outcome) is not None:
            place = rows.index(float(run.get(down, 0))), columns.index(float(run.get(across, 0)))
            table[place] = scale * float(run[outcome])
    return table


def _draw_cells(
    axes: Axes,
    values: np.ndarray[Any, np.dtype[np.float64]],
    text: str,
    colours: str,
    limits: tuple[float, float],
) -> None:
    low, high = limits
    image = axes.imshow(values, cmap=colours, vmin=low, vmax=max(high, low + 1e-9), aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            red, green, blue, _ = image.to_rgba(np.asarray(value))
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
            colour = "white" if dark else "black"
            axes.text(column, row, text.format(value), ha="center", va="center", color=colour)


def _name_cells(
    axes: Axes, rows: Sequence[Any], columns: Sequence[Any], upright: bool = False
) -> None:
    rotation: dict[str, Any] = (
        {} if upright else {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
    )
    axes.set_xticks(range(len(columns)), [_short(name) for name in columns], **rotation)
    axes.set_yticks(range(len(rows)), [_short(name) for name in rows])
    axes.grid(visible=False)


def _short(name: Any) -> str:
    return f"{name:g}" if isinstance(name, float) else str(name)
