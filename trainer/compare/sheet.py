"""A sheet of reconstructions: a row for each method, a column for each face.

For drawn faces (trainer.schematic), or for pictures that a user gives: a sheet shows whoever was
coded, and so one of dataset faces is not for publication.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from trainer.compare.methods import method
from trainer.compare.plots import STYLE


@dataclass(frozen=True)
class Cell:
    """One picture of the sheet.

    face: uint8 (1, H, W) or (3, H, W). size: coded bytes, None for an original.
    caption: what else is to be said of it, e.g. its PSNR or what the classifier named.
    """

    face: NDArray[np.uint8]
    size: int | None = None
    caption: str = ""


def draw_sheet(path: Path, rows: Mapping[str, Sequence[Cell]]) -> None:
    """Write the sheet (PNG, or what path's ending says); rows by method's id, or any other name.

    Raises ValueError without a row, or for rows of different lengths.
    """
    lengths = {len(cells) for cells in rows.values()}
    if len(lengths) != 1 or lengths == {0}:
        raise ValueError(f"expected as many faces in every row, got {sorted(lengths)}")
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(1.3 * lengths.pop(), 1.65 * len(rows)), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(len(rows), len(next(iter(rows.values()))), squeeze=False)
        for axes, (name, cells) in zip(panels, rows.items(), strict=True):
            for axis, cell in zip(axes, cells, strict=True):
                _draw_cell(axis, cell)
            axes[0].set_title(method(name).label, loc="left", fontsize=9)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120, metadata={"Software": None} if _is_png(path) else None)


def _draw_cell(axis: Axes, cell: Cell) -> None:
    grey = cell.face.shape[0] == 1
    picture = cell.face[0] if grey else cell.face.transpose(1, 2, 0)
    # Every pixel as a square: what is missing must not be smoothed away.
    axis.imshow(picture, cmap="gray" if grey else None, vmin=0, vmax=255, interpolation="nearest")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(False)
    size = "" if cell.size is None else f"{cell.size} bytes"
    axis.set_xlabel("\n".join(part for part in (size, cell.caption) if part), fontsize=7)


def _is_png(path: Path) -> bool:
    return path.suffix == ".png"
