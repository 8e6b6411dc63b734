"""Reads the fields of a manifest one by one; each error names the field that is wrong."""

import re
from datetime import date
from math import isfinite
from reprlib import repr as shortened
from typing import Any

from mien.errors import ManifestError

_MAX_DEPTH = 8
# Of a picture or a latent, along one side.
MAX_SIDE = 4096
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ -]{0,63}", re.ASCII)


class Fields:
    """One JSON object, taken apart field by field."""

    def __init__(self, document: object, path: str) -> None:
        if not isinstance(document, dict):
            raise ManifestError(f"{path} must be an object, not {_kind(document)}")
        self._left: dict[str, Any] = dict(document)
        self._path = path

    def take(self, name: str, kind: type) -> Any:
        """Return a field of this type. Raises ManifestError, as all of these do."""
        if name not in self._left:
            raise ManifestError(f"{self._path} has no {name!r}")
        value = self._left.pop(name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ManifestError(
                f"{self._path}.{name} must be of type {kind.__name__}, not {_kind(value)}"
            )
        return value

    def nested(self, name: str) -> "Fields":
        """Return an object within this one."""
        return Fields(self.take(name, dict), f"{self._path}.{name}")

    def word(self, name: str) -> str:
        """Return a short plain text."""
        value: str = self.take(name, str)
        if not _WORD.fullmatch(value):
            raise ManifestError(
                f"{self._path}.{name} must be a short plain text, not {shortened(value)}"
            )
        return value

    def size(self, name: str, largest: int, smallest: int = 1) -> int:
        """Return a whole number within bounds."""
        value: int = self.take(name, int)
        if not smallest <= value <= largest:
            raise ManifestError(
                f"{self._path}.{name} must be within {smallest}..{largest}, not {shortened(value)}"
            )
        return value

    def names(self) -> list[str]:
        """Return the fields that nobody took yet."""
        return list(self._left)

    def end(self) -> None:
        """Refuse fields that nobody took."""
        if self._left:
            raise ManifestError(
                f"{self._path} has fields unknown here: {shortened(list(self._left))}"
            )


def read_day(text: str) -> str:
    """A date as YYYY-MM-DD and nothing else."""
    try:
        if date.fromisoformat(text).isoformat() == text:
            return text
    except ValueError:
        pass
    raise ManifestError(f"manifest.created must be YYYY-MM-DD, not {shortened(text)}")


def read_expressions(names: list[Any]) -> tuple[str, ...]:
    """The names of the expressions, in their order."""
    words = all(isinstance(name, str) and _WORD.fullmatch(name) for name in names)
    if not words or not 2 <= len(names) <= 64 or len(set(names)) != len(names):
        raise ManifestError(
            f"manifest.expressions must be 2 to 64 different words, not {shortened(names)}"
        )
    return tuple(names)


def read_figures(value: Any, path: str, depth: int = 0) -> Any:
    """Numbers, lists of them and names for them, to a bounded depth."""
    match value:
        case _ if depth > _MAX_DEPTH or isinstance(value, bool):
            pass
        case float() if isfinite(value):
            return value
        case int() if abs(value) < 1 << 63:
            return value
        case list():
            return [read_figures(item, path, depth + 1) for item in value]
        case dict() if all(_WORD.fullmatch(name) for name in value):
            return {
                name: read_figures(item, f"{path}.{name}", depth + 1)
                for name, item in value.items()
            }
    raise ManifestError(f"{path} must hold names and finite numbers, not {shortened(value)}")


def read_counts(fields: Fields, name: str, length: int) -> tuple[int, ...]:
    """A list of so many counts."""
    values: list[Any] = fields.take(name, list)
    if len(values) != length or not all(
        type(value) is int and 0 <= value < 1 << 48 for value in values
    ):
        raise ManifestError(
            f"manifest.calibration.{name} must be {length} counts, not {shortened(values)}"
        )
    return tuple(values)


def read_point(point: object) -> tuple[float, float]:
    """(x, y) in pixels of the crop."""
    match point:
        case [int() | float() as x, int() | float() as y] if max(abs(x), abs(y)) <= MAX_SIDE:
            return float(x), float(y)
    raise ManifestError(
        f"manifest.image.landmarks must hold [x, y] in pixels, not {shortened(point)}"
    )


def refuse_constant(word: str) -> None:
    """For json.loads: NaN and the infinities are no JSON."""
    raise ValueError(f"{word} is not a number")


def _kind(value: object) -> str:
    return type(value).__name__
