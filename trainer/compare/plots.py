"""The curves of results.json as SVG. The same results draw the same bytes, machine by machine."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from trainer.compare.methods import ANCHOR, EDGE_ONLY, UNCOMPRESSED, method

STYLE: dict[Any, Any] = {
    "svg.hashsalt": "mien",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "legend.fontsize": 8,
}
PANELS = {
    "original": "classifier as trained on uncompressed faces",
    "adapted": "classifier trained on this method's faces",
}
_TICKS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
Draw = Callable[[Figure, Mapping[str, Any]], None]


def save(path: Path, draw: Draw, results: Mapping[str, Any], size: tuple[float, float]) -> None:
    """Draw one figure and write it, without a date and with ids that do not change."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure, results)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
    # matplotlib ends some lines with a space.
    path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")


def draw_rate_accuracy(figure: Figure, results: Mapping[str, Any]) -> None:
    """Accuracy over log bytes, a panel for each kind of classifier; bands span the seeds."""
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for axes, (panel, title) in zip(panels, PANELS.items(), strict=True):
        axes.set_title(title, loc="left", fontsize=9)
        names = [name for name in results["methods"] if method(name).panel == panel]
        _draw_curves(axes, results, names, "accuracy", 100)
        if panel == "adapted":
            _draw_reference(axes, results)
        _draw_uncompressed(axes, results)
        _draw_edge_only(axes, results)
        _byte_axis(axes, results)
        axes.legend(loc="lower right")
    panels[0].set_ylabel("accuracy, %")


def draw_rate_psnr(figure: Figure, results: Mapping[str, Any]) -> None:
    """PSNR over log bytes: adapting a classifier does not change the pictures."""
    _draw_quality(figure, results, "psnr_db", "PSNR, dB")


def draw_rate_ms_ssim(figure: Figure, results: Mapping[str, Any]) -> None:
    """MS-SSIM over log bytes."""
    _draw_quality(figure, results, "ms_ssim", "MS-SSIM")


def _draw_quality(figure: Figure, results: Mapping[str, Any], field: str, label: str) -> None:
    axes = figure.subplots()
    # A classifier that was adapted looks at the same pictures as the original one.
    same = ["adapted", *(["original-on-joint"] if "joint" in results["methods"] else [])]
    names = [name for name in results["methods"] if method(name).panel and name not in same]
    names = [name for name in names if not name.endswith("-adapted")]
    _draw_curves(axes, results, names, field, 1)
    _byte_axis(axes, results, coded_only=True)
    axes.set_ylabel(label)
    axes.legend(loc="lower right")


def _draw_curves(
    axes: Axes, results: Mapping[str, Any], names: Sequence[str], field: str, scale: float
) -> None:
    for name in names:
        shown, figures = method(name), results["methods"][name]
        rates = [rate for rate in figures["rates"] if rate[field] is not None]
        if not rates:
            continue
        sizes = [rate["bytes"] for rate in rates]
        values = [scale * rate[field] for rate in rates]
        axes.plot(
            *(sizes, values),
            color=shown.colour,
            marker=shown.marker,
            label=shown.label.removesuffix(", classifier adapted"),
            # Learned codecs stand out from the classical ones.
            linewidth=1.8 if shown.marker in "osD" else 1.1,
        )
        if f"{field}_of_seeds" in rates[0] and len(figures["seeds"]) > 1:
            low, high = zip(*(rate[f"{field}_of_seeds"] for rate in rates), strict=True)
            axes.fill_between(
                sizes,
                [scale * value for value in low],
                [scale * value for value in high],
                color=shown.colour,
                alpha=0.18,
                linewidth=0,
            )


def _draw_reference(axes: Axes, results: Mapping[str, Any]) -> None:
    if ANCHOR in results["methods"]:
        rates = results["methods"][ANCHOR]["rates"]
        axes.plot(
            [rate["bytes"] for rate in rates],
            [100 * rate["accuracy"] for rate in rates],
            color="#888888",
            linewidth=1,
            linestyle=":",
            label="generic learned codec, original classifier",
        )


def _draw_uncompressed(axes: Axes, results: Mapping[str, Any]) -> None:
    if UNCOMPRESSED not in results["methods"]:
        return
    rate = results["methods"][UNCOMPRESSED]["rates"][0]
    axes.axhline(100 * rate["accuracy"], color="#555555", linewidth=1, linestyle="--")
    axes.annotate(
        f"uncompressed, PNG of {rate['bytes']:.0f} bytes",
        (0.02, 100 * rate["accuracy"]),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3),
        textcoords="offset points",
        fontsize=8,
        color="#555555",
    )


def _draw_edge_only(axes: Axes, results: Mapping[str, Any]) -> None:
    if EDGE_ONLY not in results["methods"]:
        return
    rate = results["methods"][EDGE_ONLY]["rates"][0]
    place = rate["bytes"], 100 * rate["accuracy"]
    shown = method(EDGE_ONLY)
    axes.plot(*place, color=shown.colour, marker=shown.marker, markersize=9, linestyle="")
    axes.annotate(
        "classified on the device,\n1 byte: a label, no face",
        place,
        xytext=(8, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
        color=shown.colour,
    )


def _byte_axis(axes: Axes, results: Mapping[str, Any], coded_only: bool = False) -> None:
    sizes = [
        rate["bytes"]
        for name, figures in results["methods"].items()
        for rate in figures["rates"]
        if method(name).panel or (name == EDGE_ONLY and not coded_only)
    ]
    byte_ticks(axes, sizes)
    axes.set_xlabel("coded bytes a face, headers included (logarithmic)")


def byte_ticks(axes: Axes, sizes: Sequence[float]) -> None:
    """A logarithmic axis over these bytes, with ticks that people read."""
    low, high = 0.8 * min(sizes), 1.25 * max(sizes)
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.set_xticks([tick for tick in _TICKS if low <= tick <= high])
    axes.set_xticks([], minor=True)
    axes.xaxis.set_major_formatter("{x:,.0f}")
