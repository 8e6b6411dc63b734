"""Enough of PromQL to know which series and labels an expression names; no evaluation."""

import re
from dataclasses import dataclass

FUNCTIONS = frozenset(
    ("rate", "increase", "sum", "min", "max", "count", "histogram_quantile", "absent")
    + ("min_over_time", "max_over_time", "avg_over_time", "time", "and", "or", "unless", "bool")
)
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_SELECTOR = re.compile(r"([A-Za-z_:][A-Za-z0-9_:]*)\s*(\{[^}]*\})?")
_MATCHER = re.compile(r'\s*([A-Za-z_]\w*)\s*(=~|!~|!=|=)\s*"([^"]*)"\s*,?')
_RANGE = re.compile(r"\[[0-9a-z]+\]|\boffset [0-9a-z]+")


@dataclass(frozen=True)
class Selector:
    """A metric's name, and label → (operator, value)."""

    name: str
    matchers: dict[str, tuple[str, str]]

    def values(self, label: str) -> list[str]:
        """The values that a matcher names: one, or the alternatives of a plain expression."""
        operator, value = self.matchers[label]
        return value.split("|") if operator.endswith("~") else [value]


def selectors(expr: str) -> list[Selector]:
    """Every metric that is named. Raises ValueError for a matcher that is not understood."""
    text = _RANGE.sub("", _GROUPING.sub(" ", expr))
    found = []
    for name, braces in _SELECTOR.findall(text):
        if name in FUNCTIONS:
            continue
        inside = braces[1:-1]
        if _MATCHER.sub("", inside).strip():
            raise ValueError(f"matchers that are not understood: {braces}")
        matchers = {m[1]: (m[2], m[3]) for m in _MATCHER.finditer(inside)}
        found.append(Selector(name, matchers))
    return found


def grouping_labels(expr: str) -> set[str]:
    """The labels named by `by`, `on` and their like."""
    lists = _GROUPING.findall(expr)
    return {label.strip() for inside in lists for label in inside.split(",") if label.strip()}


def kept_labels(expr: str) -> set[str] | None:
    """The labels of the left operand, as its `by` says; None where it is a series as it is."""
    grouped = re.search(r"\bby\s*\(([^)]*)\)", expr)
    if grouped is None or grouped.start() > expr.index(selectors(expr)[0].name):
        return None
    return {label.strip() for label in grouped[1].split(",")} - {"le"}
