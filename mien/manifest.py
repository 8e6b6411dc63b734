"""The manifest of a bundle: what its files are, and how a face is framed and coded.

Its bytes are hashed to the bundle id, so everything in it, and through the hashes in it every
file, is fixed by that id.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
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
from mien.manifest_fields import (
    MAX_SIDE,
    Fields,
    read_counts,
    read_day,
    read_expressions,
    read_figures,
    read_point,
    refuse_constant,
)

FORMAT = 2
MAX_MANIFEST_BYTES = 1 << 20
MAX_FILE_BYTES = 64 << 20
_MAX_FILES = 64
_MAX_LEVEL = 31
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*", re.ASCII)
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
            document = json.loads(data, parse_constant=refuse_constant)
        except (ValueError, RecursionError) as error:
            raise ManifestError(f"the manifest is not JSON: {error}") from error
        root = Fields(document, "manifest")
        if root.take("format", int) != FORMAT:
            raise ManifestError(
                f"manifest.format is {shortened(document['format'])}, {FORMAT} is read here: "
                "use the release of mien that made the bundle, or export it again with this one"
            )
        expressions = read_expressions(root.take("expressions", list))
        manifest = cls(
            name=root.word("name"),
            created=read_day(root.take("created", str)),
            expressions=expressions,
            image=_image(root.nested("image")),
            latent=_latent(root.nested("latent")),
            figures=MappingProxyType(read_figures(root.take("figures", dict), "manifest.figures")),
            files=_files(root.nested("files")),
            calibration=_calibration(root, len(expressions)),
        )
        root.end()
        return manifest


def _image(fields: Fields) -> ImageSpec:
    height, width = fields.size("height", MAX_SIDE), fields.size("width", MAX_SIDE)
    points = fields.take("landmarks", list)
    spec = ImageSpec(fields.size("channels", 4), height, width, tuple(map(read_point, points)))
    if len(points) != 5:
        raise ManifestError(f"manifest.image.landmarks must be 5 points, not {len(points)}")
    fields.end()
    return spec


def _latent(fields: Fields) -> LatentSpec:
    spec = LatentSpec(
        fields.size("channels", MAX_SIDE),
        fields.size("height", MAX_SIDE),
        fields.size("width", MAX_SIDE),
        fields.size("default_level", _MAX_LEVEL, smallest=0),
    )
    fields.end()
    return spec


def _calibration(root: Fields, expressions: int) -> Calibration | None:
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
        read_counts(fields, "expressions", expressions),
        read_counts(fields, "confidences", CONFIDENCE_BINS),
    )
    if sum(calibration.expressions) != sum(calibration.confidences):
        raise ManifestError("manifest.calibration must count the same faces twice")
    fields.end()
    return calibration


def _files(fields: Fields) -> Mapping[str, FileEntry]:
    names = fields.names()
    if len(names) > _MAX_FILES:
        raise ManifestError(f"a bundle has at most {_MAX_FILES} files, not {len(names)}")
    return MappingProxyType({name: _file(fields, name) for name in names})


def _file(fields: Fields, name: str) -> FileEntry:
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
