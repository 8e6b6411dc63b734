"""timeline.png: what the recognizer said over time, and below it what each face cost.

One stacked panel for each of the most seen faces; a panel's height is probability 1, so that the
widest band is the expression named. Where nobody is seen twice, as in a folder of photographs, the
faces stand side by side instead. matplotlib is imported when a plot is drawn, no sooner.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from mien.cli.palette import colour
from mien.cli.results import FaceResult, in_order

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_PANELS = 4
# A band is named in the plot where it is at least this wide; the legend names all.
_LABELLED_PROBABILITY = 0.3
# Beyond this silence a track's bands are not joined: nobody was seen in between.
_GAP_S = 1.0


def draw_timeline(path: Path, faces: Sequence[FaceResult], title: str) -> None:
    """Write the plot as PNG. Without any face it says so instead of showing empty axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    side_by_side = bool(faces) and len({face.track_id for face in faces}) == len(faces)
    if side_by_side:
        faces = [
            replace(face, t_s=float(place), track_id=0)
            for place, face in enumerate(in_order(faces), start=1)
        ]
    tracks = most_seen_tracks(faces, MAX_PANELS)
    rows = max(len(tracks), 1)
    figure = Figure(figsize=(11, 1.9 + 2.6 * rows), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows + 1, 1, sharex=True, height_ratios=[2.6] * rows + [1.3])
    figure.suptitle(title, fontsize=12, x=0.01, ha="left")
    for axis, track_id in zip(axes, tracks, strict=False):
        one_face = in_order([face for face in faces if face.track_id == track_id])
        label = "probability" if side_by_side else f"face {track_id}: probability"
        _draw_probabilities(axis, one_face, label)
    _draw_bytes(axes[-1], in_order(faces))
    axes[-1].set_xlabel("faces, in the order seen" if side_by_side else "seconds")
    if faces:
        handles, labels = axes[0].get_legend_handles_labels()
        # The stack grows upwards, and so the legend reads downwards in the stack's order.
        figure.legend(handles[::-1], labels[::-1], loc="outside right center", frameon=False)
    else:
        _say_no_face(axes[0])
    figure.savefig(path)


def most_seen_tracks(faces: Sequence[FaceResult], limit: int) -> list[int]:
    """The track ids with the most recognised faces, in ascending order of id."""
    seen = Counter(face.track_id for face in faces)
    return sorted(track_id for track_id, _ in seen.most_common(limit))


def _draw_probabilities(axis: Axes, faces: Sequence[FaceResult], label: str) -> None:
    names = list(faces[0].probabilities)
    for index, stretch in enumerate(_without_gaps(faces)):
        # The last face gets a width too, or a stretch of one face would not be seen at all.
        times = [*(face.t_s for face in stretch), stretch[-1].t_s + _spacing_s(stretch)]
        bands = [[face.probabilities[name] for face in (*stretch, stretch[-1])] for name in names]
        axis.stackplot(
            times,
            bands,
            step="post",
            labels=names if index == 0 else (),
            colors=[colour(name) for name in names],
            edgecolor="white",
            linewidth=0.4,
        )
        _name_bands(axis, stretch)
    axis.set_ylim(0, 1)
    axis.set_ylabel(label)
    axis.margins(x=0)


def _spacing_s(faces: Sequence[FaceResult]) -> float:
    """The usual time from one face to the next: the median, or 1 where there is only one."""
    steps = sorted(b.t_s - a.t_s for a, b in pairwise(faces))
    return steps[len(steps) // 2] if steps else 1.0


def _without_gaps(faces: Sequence[FaceResult]) -> list[list[FaceResult]]:
    stretches: list[list[FaceResult]] = [[faces[0]]]
    for face in faces[1:]:
        if face.t_s - stretches[-1][-1].t_s > _GAP_S:
            stretches.append([])
        stretches[-1].append(face)
    return stretches


def _name_bands(axis: Axes, faces: Sequence[FaceResult]) -> None:
    """Write an expression's name into its band, where the band is widest."""
    for name in {face.expression for face in faces}:
        widest = max(faces, key=lambda face: face.probabilities[name])
        probability = widest.probabilities[name]
        if probability < _LABELLED_PROBABILITY:
            continue
        below = 0.0
        for other, value in widest.probabilities.items():
            if other == name:
                break
            below += value
        axis.annotate(
            name,
            (widest.t_s + _spacing_s(faces) / 2, below + probability / 2),
            ha="center",
            va="center",
            fontsize=10,
            bbox={
                "boxstyle": "round,pad=0.25",
                "facecolor": "white",
                "alpha": 0.85,
                "linewidth": 0,
            },
        )


def _draw_bytes(axis: Axes, faces: Sequence[FaceResult]) -> None:
    axis.set_ylabel("bytes per face")
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_ylim(bottom=0)
    if not faces:
        return
    costs = [face.payload_bytes for face in faces]
    mean = sum(costs) / len(costs)
    times = [face.t_s for face in faces]
    axis.plot(times, costs, color="#333333", linewidth=1.3, drawstyle="steps-post")
    axis.axhline(mean, color="#777777", linewidth=0.9, linestyle="--")
    axis.annotate(
        f"mean {mean:.1f}",
        (1, mean),
        xycoords=("axes fraction", "data"),
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
        annotation_clip=False,
    )
    axis.set_ylim(0, max(costs) * 1.25)


def _say_no_face(axis: Axes) -> None:
    axis.text(0.5, 0.5, "no face was found", ha="center", va="center", transform=axis.transAxes)
    axis.set_yticks([])
