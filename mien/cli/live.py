"""What the demo shows while it runs: a live picture on a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from mien.cli.palette import colour
from mien.cli.results import FaceResult
from mien.cli.tally import Tally, bar, sparkline

if TYPE_CHECKING:
    from rich.console import RenderableType

_LINE_EVERY_S = 0.5
_WIDTH = 76
_BAR_WIDTH = 22
_SPARKS = 18
_OTHERS_SHOWN = 3


class View(AbstractContextManager["View"], Protocol):
    """Shows the tally after each recognised face."""

    def update(self, face: FaceResult, tally: Tally) -> None:
        """Take notice of `face`, which the tally already counts."""


def make_view(title: str) -> View:
    """A live view where stdout is a terminal, else plain lines."""
    return RichView(title) if sys.stdout.isatty() else PlainView(print)


class PlainView:
    """One line each half second of the source, and whenever a face's expression changes."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._shown: dict[int, FaceResult] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, face: FaceResult, tally: Tally) -> None:
        """Write a line if it says something new."""
        last = self._shown.get(face.track_id)
        changed = last is None or last.expression != face.expression
        if not changed and last is not None and face.t_s - last.t_s < _LINE_EVERY_S:
            return
        self._shown[face.track_id] = face
        self._write(
            f"{face.t_s:8.2f} s  face {face.track_id:<3} {face.expression:<10}"
            f" {face.probability:4.0%} {bar(face.probability, 10)}"
            f"  {_figure(tally.payload_bytes_per_face, 'B/face')}"
            f"  {_figure(tally.wire_bytes_per_s, 'B/s up')}"
        )


class RichView:
    """Bars for the largest face, a line for each other face, figures and a sparkline."""

    def __init__(self, title: str) -> None:
        from rich.live import Live

        self._title = title
        self._live = Live(self._panel("waiting for the first face …"), refresh_per_second=12)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.__exit__(kind, error, traceback)

    def update(self, face: FaceResult, tally: Tally) -> None:
        """Draw the tally as it is now; the terminal sees it at the next of 12 refreshes a second.

        Drawn here and not at the refresh, which happens on rich's own thread.
        """
        self._live.update(self._panel(picture(tally)))

    def _panel(self, content: RenderableType) -> RenderableType:
        from rich.panel import Panel

        return Panel(content, title=self._title, width=_WIDTH)


def picture(tally: Tally) -> RenderableType:
    """The live picture as a rich renderable."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    in_view = tally.in_view()
    others = [
        Text(
            f"face {face.track_id:<4} {face.expression:<10} {face.probability:4.0%}",
            style=colour(face.expression),
        )
        for face in in_view[1 : 1 + _OTHERS_SHOWN]
    ]
    largest = Table.grid(padding=(0, 2))
    largest.add_row(_bars(in_view[0]), _figures(in_view[0], tally))
    return Group(largest, *others)


def _bars(face: FaceResult) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 1))
    for name, probability in face.probabilities.items():
        weight = "bold " if name == face.expression else ""
        table.add_row(
            Text(name, style=weight.strip()),
            Text(bar(probability, _BAR_WIDTH), style=colour(name)),
            Text(f"{probability:4.0%}", style=weight.strip()),
        )
    return table


def _figures(face: FaceResult, tally: Tally) -> RenderableType:
    from rich.table import Table

    table = Table.grid(padding=(0, 1))
    table.add_row("time", f"{face.t_s:.2f} s")
    table.add_row("face", f"{face.track_id}")
    table.add_row("recognised", f"{tally.faces}")
    table.add_row("payload", _figure(tally.payload_bytes_per_face, "B/face"))
    table.add_row("wire up", _figure(tally.wire_bytes_per_s, "B/s"))
    table.add_row("", "")
    table.add_row("B/face", sparkline(tally.costs)[-_SPARKS:])
    return table


def _figure(value: float | None, unit: str) -> str:
    return f"{'–' if value is None else f'{value:.1f}'} {unit}"
