"""Figures of results.json as words and Markdown; nothing here computes."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

NONE = "–"


def percent(share: float | None, digits: int = 1) -> str:
    """0.8165 as 81.7%."""
    return NONE if share is None else f"{100 * share:.{digits}f}%"


def number(value: float | None, digits: int = 1) -> str:
    """A figure without a sign, thousands apart."""
    return NONE if value is None else f"{value:,.{digits}f}".replace("-", "−")


def signed(value: float | None, digits: int = 2, unit: str = "") -> str:
    """A difference, its sign always shown: −49.32%, +0.71."""
    return NONE if value is None else f"{value:+.{digits}f}{unit}".replace("-", "−")


def span(ends: Sequence[float] | None, digits: int = 2, unit: str = "") -> str:
    """An interval of differences: −51.20% … −47.90%."""
    return NONE if ends is None else " … ".join(signed(end, digits, unit) for end in ends)


def share_span(ends: Sequence[float] | None, digits: int = 1) -> str:
    """An interval of shares: 81.2% … 83.9%."""
    return NONE if ends is None else " … ".join(percent(end, digits) for end in ends)


def seeds_span(delta: Mapping[str, Any], digits: int = 2, unit: str = "") -> str:
    """The lowest and highest seed of a delta; what they have where one has none."""
    values = [value for value in delta.get("seeds", {}).values() if value is not None]
    if len(values) < 2:
        return NONE
    return span([min(values), max(values)], digits, unit)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are figures."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def probability(p: float) -> str:
    """A p-value."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
