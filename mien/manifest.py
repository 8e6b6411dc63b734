"""The manifest of a bundle: what its files are, and how a face is framed and coded.

Its bytes are hashed to the bundle id, so everything in it, and through the hashes in it every
file, is fixed by that id.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date
from math import isfinite
from reprlib import repr as shortened
from types import MappingProxyType
from typing import Any

from mien.calibration import (
    CONFIDENCE_BINS,
    MAX_TEMPERATURE,
    MIN_TEMPERATURE,
    Calibration,
)
from mien.errors import ManifestError

FORMAT = 1
MAX_MANIFEST_BYTES = 1 << 20
MAX_FILE_BYTES = 64 << 20
_MAX_FILES = 64
_MAX_SIDE = 4096
_MAX_LEVEL = 31
_MAX_DEPTH = 8
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*", re.ASCII)
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ -]{0,63}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a bundle: SHA-256 as 64 hexadecimal digits, and its size."""

    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """The aligned crop that the analysis transform takes.

    landmarks: (x, y) in pixels of the crop of the left eye, right eye, nose tip, left and right
        corner of the mouth, left being the smaller x.
    """

    channels: int
    height: int
    width: int
    landmarks: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class LatentSpec:
    """The shape of a face's symbols, and the quality level to code at where nothing is said."""

    channels: int
    height: int
    width: int
    default_level: int = 0

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.channels, self.height, self.width


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything that manifest.json says.

    created: YYYY-MM-DD.
    figures: what was measured of the bundle: name -> number, list or further names.
    files: plain file name -> entry, for every file but the manifest itself.
    calibration: of the classifier; None where the bundle says nothing of it.
    """

    name: str
    created: str
    expressions: tuple[str, ...]
    image: ImageSpec
    latent: LatentSpec
    figures: Mapping[str, Any]
    files: Mapping[str, FileEntry]
    calibration: Calibration | None = None

    @property
    def codec_id(self) -> str:
        """SHA-256 over what fixes the meaning of a payload's symbols: equal ones share a codec.

        The tables are learned and frozen to the last integer, so two trainings never share them;
        a bundle that does was made from the same codec, with another classifier.
        Raises ManifestError for a manifest without tables, which no bundle has that was loaded.
        """
        if "tables.npz" not in self.files:
            raise ManifestError("manifest.files has no tables.npz, so there is no codec")
        codec = {
            "tables": self.files["tables.npz"].sha256,
            "latent": asdict(self.latent),
            "image": asdict(self.image),
        }
        return hashlib.sha256(json.dumps(codec, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> bytes:
        """Return the canonical bytes, those that are hashed to the bundle id.

        Raises ManifestError for figures that are not plain finite numbers.
        """
        document: dict[str, Any] = {
            "format": FORMAT,
            "name": self.name,
            "created": self.created,
            "expressions": self.expressions,
            "image": asdict(self.image),
            "latent": asdict(self.latent),
            "figures": dict(self.figures),
            "files": {name: asdict(entry) for name, entry in self.files.items()},
        }
        if self.calibration is not None:
            document["calibration"] = asdict(self.calibration)
        try:
            text = json.dumps(document, sort_keys=True, indent=2, allow_nan=False)
        except (ValueError, TypeError) as error:
            raise ManifestError(f"manifest.figures cannot be written: {error}") from error
        return (text + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes) -> "Manifest":
        """Read a manifest. Raises ManifestError, which names the field that is wrong."""
        if len(data) > MAX_MANIFEST_BYTES:
            raise ManifestError(f"a manifest has at most {MAX_MANIFEST_BYTES} bytes")
        try:
            document = json.loads(data, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise ManifestError(f"the manifest is not JSON: {error}") from error
        root = _Fields(document, "manifest")
        if root.take("format", int) != FORMAT:
            raise ManifestError(
                f"manifest.format is {shortened(document['format'])}, {FORMAT} is read here: "
                "use a release of mien that is as new as the bundle"
            )
        expressions = _expressions(root.take("expressions", list))
        manifest = cls(
            name=root.word("name"),
            created=_day(root.take("created", str)),
            expressions=expressions,
            image=_image(root.nested("image")),
            latent=_latent(root.nested("latent")),
            figures=MappingProxyType(_figures(root.take("figures", dict), "manifest.figures")),
            files=_files(root.nested("files")),
            calibration=_calibration(root, len(expressions)),
        )
        root.end()
        return manifest


class _Fields:
    """One JSON object, taken apart field by field."""

    def __init__(self, document: object, path: str) -> None:
        if not isinstance(document, dict):
            raise ManifestError(f"{path} must be an object, not {_kind(document)}")
        self._left: dict[str, Any] = dict(document)
        self._path = path

    def take(self, name: str, kind: type) -> Any:
        if name not in self._left:
            raise ManifestError(f"{self._path} has no {name!r}")
        value = self._left.pop(name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ManifestError(
                f"{self._path}.{name} must be of type {kind.__name__}, not {_kind(value)}"
            )
        return value

    def nested(self, name: str) -> "_Fields":
        return _Fields(self.take(name, dict), f"{self._path}.{name}")

    def word(self, name: str) -> str:
        value: str = self.take(name, str)
        if not _WORD.fullmatch(value):
            raise ManifestError(
                f"{self._path}.{name} must be a short plain text, not {shortened(value)}"
            )
        return value

    def size(self, name: str, largest: int, smallest: int = 1) -> int:
        value: int = self.take(name, int)
        if not smallest <= value <= largest:
            raise ManifestError(
                f"{self._path}.{name} must be within {smallest}..{largest}, not {shortened(value)}"
            )
        return value

    def names(self) -> list[str]:
        return list(self._left)

    def end(self) -> None:
        if self._left:
            raise ManifestError(
                f"{self._path} has fields unknown here: {shortened(list(self._left))}"
            )


def _day(text: str) -> str:
    try:
        if date.fromisoformat(text).isoformat() == text:
            return text
    except ValueError:
        pass
    raise ManifestError(f"manifest.created must be YYYY-MM-DD, not {shortened(text)}")


def _expressions(names: list[Any]) -> tuple[str, ...]:
    words = all(isinstance(name, str) and _WORD.fullmatch(name) for name in names)
    if not words or not 2 <= len(names) <= 64 or len(set(names)) != len(names):
        raise ManifestError(
            f"manifest.expressions must be 2 to 64 different words, not {shortened(names)}"
        )
    return tuple(names)


def _figures(value: Any, path: str, depth: int = 0) -> Any:
    match value:
        case _ if depth > _MAX_DEPTH or isinstance(value, bool):
            pass
        case float() if isfinite(value):
            return value
        case int() if abs(value) < 1 << 63:
            return value
        case list():
            return [_figures(item, path, depth + 1) for item in value]
        case dict() if all(_WORD.fullmatch(name) for name in value):
            return {
                name: _figures(item, f"{path}.{name}", depth + 1) for name, item in value.items()
            }
    raise ManifestError(f"{path} must hold names and finite numbers, not {shortened(value)}")


def _image(fields: _Fields) -> ImageSpec:
    height, width = fields.size("height", _MAX_SIDE), fields.size("width", _MAX_SIDE)
    points = fields.take("landmarks", list)
    spec = ImageSpec(fields.size("channels", 4), height, width, tuple(map(_point, points)))
    if len(points) != 5:
        raise ManifestError(f"manifest.image.landmarks must be 5 points, not {len(points)}")
    fields.end()
    return spec


def _point(point: object) -> tuple[float, float]:
    match point:
        case [int() | float() as x, int() | float() as y] if max(abs(x), abs(y)) <= _MAX_SIDE:
            return float(x), float(y)
    raise ManifestError(
        f"manifest.image.landmarks must hold [x, y] in pixels, not {shortened(point)}"
    )


def _latent(fields: _Fields) -> LatentSpec:
    spec = LatentSpec(
        fields.size("channels", _MAX_SIDE),
        fields.size("height", _MAX_SIDE),
        fields.size("width", _MAX_SIDE),
        fields.size("default_level", _MAX_LEVEL, smallest=0),
    )
    fields.end()
    return spec


def _calibration(root: _Fields, expressions: int) -> Calibration | None:
    if "calibration" not in root.names():
        return None
    fields = root.nested("calibration")
    temperature: float = fields.take("temperature", float)
    if not MIN_TEMPERATURE <= temperature <= MAX_TEMPERATURE:
        raise ManifestError(
            f"manifest.calibration.temperature must be within {MIN_TEMPERATURE}.."
            f"{MAX_TEMPERATURE}, not {shortened(temperature)}"
        )
    calibration = Calibration(
        temperature,
        _counts(fields, "expressions", expressions),
        _counts(fields, "confidences", CONFIDENCE_BINS),
    )
    if sum(calibration.expressions) != sum(calibration.confidences):
        raise ManifestError("manifest.calibration must count the same faces twice")
    fields.end()
    return calibration


def _counts(fields: _Fields, name: str, length: int) -> tuple[int, ...]:
    values: list[Any] = fields.take(name, list)
    if len(values) != length or not all(
        type(value) is int and 0 <= value < 1 << 48 for value in values
    ):
        raise ManifestError(
            f"manifest.calibration.{name} must be {length} counts, not {shortened(values)}"
        )
    return tuple(values)


def _files(fields: _Fields) -> Mapping[str, FileEntry]:
    names = fields.names()
    if len(names) > _MAX_FILES:
        raise ManifestError(f"a bundle has at most {_MAX_FILES} files, not {len(names)}")
    return MappingProxyType({name: _file(fields, name) for name in names})


def _file(fields: _Fields, name: str) -> FileEntry:
    if not is_plain_name(name) or name == "manifest.json":
        raise ManifestError(f"manifest.files has {shortened(name)}, which is not a plain file name")
    entry = fields.nested(name)
    sha256 = entry.take("sha256", str)
    if not _SHA256.fullmatch(sha256):
        raise ManifestError(f"manifest.files.{name}.sha256 must be 64 hexadecimal digits")
    size = entry.size("bytes", MAX_FILE_BYTES, smallest=0)
    entry.end()
    return FileEntry(sha256, size)


def is_plain_name(name: str) -> bool:
    """Whether a file name has no folder in it, is not hidden, and is ASCII letters and digits."""
    return len(name) <= 64 and _FILE_NAME.fullmatch(name) is not None


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is not a number")


def _kind(value: object) -> str:
    return type(value).__name__
