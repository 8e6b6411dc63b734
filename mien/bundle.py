"""A bundle: one immutable folder that holds everything that coding and recognising a face need.

    manifest.json     its SHA-256 is the bundle id; it holds the SHA-256 of every other file
    analysis.onnx     edge: face uint8 (N, 1, H, W) -> y float32 (N, C, h, w), and doubtful
                      bool (N,) where it says whom to look at twice (mien.second_look)
    enhancement.onnx  edge: face, symbols, level -> e float32 (N, E, h', w')
    tables.npz        both: integer CDFs of the symbols, rint(gains[level] · y), and the gains
    layer0.npz, …     both: integer CDFs of the symbols of each enhancement layer, by quantiser
                      (mien.trellis)
    classifier.onnx   cloud: symbols int32 (N, C, h, w), level int32 (N,)
                      -> probabilities float32 (N, expressions)
    synthesis.onnx    cloud: symbols, level, enhancement int32 (N, E, h', w') in half steps, as
                      LayersCodec.values gives it -> face uint8 (N, 1, H, W)
    probe.npz         what the bundle must answer, see mien.probe
    MODEL_CARD.md     measured figures, in words
    manifest.sig      signatures of the bundle id, no part of the bundle; see mien.signing

No file is used before its size and hash are checked.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import Any

from mien.bitstream import Limits, bundle_tag
from mien.calibration import Calibration
from mien.codec import ChunkCodec
from mien.errors import (
    BundleHashError,
    IncompleteBundleError,
    ManifestError,
    UnknownBundleError,
)
from mien.layers import LayersCodec
from mien.manifest import (
    MAX_FILE_BYTES,
    MAX_MANIFEST_BYTES,
    FileEntry,
    ImageSpec,
    LatentSpec,
    Manifest,
    is_plain_name,
)
from mien.plain_reader import PlainReader
from mien.reading import ReaderKind
from mien.signing import TrustedKeys, read_signatures
from mien.tables import CdfTables
from mien.whole_file import read_bounded

MANIFEST = "manifest.json"
LAYER_FILES = ("layer0.npz", "layer1.npz")
EDGE_FILES = (MANIFEST, "analysis.onnx", "tables.npz", "enhancement.onnx", *LAYER_FILES)
ALL_FILES = (*EDGE_FILES, "classifier.onnx", "synthesis.onnx", "probe.npz", "MODEL_CARD.md")


@dataclass(frozen=True)
class Bundle:
    """A bundle whose required files were verified when it was loaded."""

    folder: Path
    bundle_id: str
    manifest: Manifest
    manifest_bytes: int
    tables: CdfTables

    def codec(self, limits: Limits | None = None, reader: ReaderKind = PlainReader) -> ChunkCodec:
        """Return a codec for chunks of this bundle. reader: how it decodes them."""
        return ChunkCodec(self.tables, self.bundle_id, limits, reader)

    def layers(self, limits: Limits | None = None, reader: ReaderKind = PlainReader) -> LayersCodec:
        """Return a codec for the enhancement layers of this bundle's chunks.

        Raises BundleHashError, TablesError.
        """
        return LayersCodec(self.layer_tables(), limits, reader)

    def layer_tables(self) -> list[CdfTables]:
        """Return the tables of each enhancement layer. Raises BundleHashError, TablesError."""
        return [CdfTables.load(self.read(name)) for name in LAYER_FILES]

    def path(self, name: str) -> Path:
        """Return where a file of the bundle lies. Raises ManifestError when it has no such file."""
        self.entry(name)
        return self.folder / name

    def read(self, name: str) -> bytes:
        """Return the bytes of a file, verified as they are read.

        Raises ManifestError when the bundle has no such file, BundleHashError when the file is
        missing or another one.
        """
        entry = self.entry(name)
        data = read_bounded(self.folder / name, MAX_FILE_BYTES)
        _verify(self.folder / name, data, entry)
        return data

    def entry(self, name: str) -> FileEntry:
        """Return the size and SHA-256 of a file, also of manifest.json, whose hash is the id.

        Raises ManifestError when the bundle has no such file.
        """
        if name == MANIFEST:
            return FileEntry(self.bundle_id, self.manifest_bytes)
        return _entry(self.manifest, name)


def load_bundle(
    folder: Path,
    files: Sequence[str] | None = EDGE_FILES,
    bundle_id: str | None = None,
    keys: TrustedKeys | None = None,
) -> Bundle:
    """Load the bundle in a folder, and verify the files that will be used.

    files: those that must be there, tables.npz in any case; None is every file of the manifest.
    bundle_id: the id that it must have, if that is known.
    keys: those of which one must have signed it, looked at before anything of it is parsed; without
        them its signature is not looked at.
    Raises ManifestError, BundleHashError (IncompleteBundleError, one of them, before anything is
    hashed), TablesError, BundleSignatureError.
    """
    data = read_bounded(folder / MANIFEST, MAX_MANIFEST_BYTES)
    found_id = hashlib.sha256(data).hexdigest()
    if bundle_id is not None and found_id != bundle_id:
        raise BundleHashError(f"{folder} holds bundle {found_id}, expected was {bundle_id}")
    if keys is not None:
        keys.check(found_id, read_signatures(folder))
    manifest = Manifest.from_json(data)
    wanted = (*ALL_FILES, *manifest.files) if files is None else (*files, "tables.npz")
    entries = {name: _entry(manifest, name) for name in wanted if name != MANIFEST}
    for name, entry in entries.items():
        _check_is_whole(folder / name, entry)
    verified = {name: _verified(folder / name, entry) for name, entry in entries.items()}
    tables = CdfTables.load(verified["tables.npz"])
    if tables.shape != manifest.latent.shape:
        raise ManifestError(
            f"{folder}: the tables are for latents of {tables.shape}, "
            f"the manifest says {manifest.latent.shape}"
        )
    if manifest.latent.default_level >= tables.levels:
        raise ManifestError(
            f"{folder}: the tables have {tables.levels} levels, "
            f"the manifest's default is {manifest.latent.default_level}"
        )
    return Bundle(folder, found_id, manifest, len(data), tables)


def write_manifest(
    folder: Path,
    *,
    name: str,
    created: str,
    expressions: Sequence[str],
    image: ImageSpec,
    latent: LatentSpec,
    figures: Mapping[str, Any],
    files: Sequence[str] = ALL_FILES,
    calibration: Calibration | None = None,
) -> str:
    """Write manifest.json for the files that lie in a folder, and return the bundle id.

    Raises ManifestError when what it says could not be read back.
    """
    entries = {}
    for file in files:
        if file != MANIFEST:
            data = read_bounded(folder / file, MAX_FILE_BYTES)
            entries[file] = FileEntry(hashlib.sha256(data).hexdigest(), len(data))
    manifest = Manifest(
        name, created, tuple(expressions), image, latent, figures, entries, calibration
    )
    data = manifest.to_json()
    Manifest.from_json(data)
    (folder / MANIFEST).write_bytes(data)
    return hashlib.sha256(data).hexdigest()


class BundleRepository:
    """The bundles of a folder: those in its sub-folders, or the one that it is itself.

    bundles: verified, the preferred one first: the latest created, of equals the last by name.
    """

    def __init__(
        self, folder: Path, files: Sequence[str] = ALL_FILES, keys: TrustedKeys | None = None
    ) -> None:
        folders = bundle_folders(folder)
        if not folders:
            raise UnknownBundleError(
                f"there is no bundle in {folder}: "
                f"a bundle is a folder with a {MANIFEST}, made by `mien-train export`"
            )
        bundles = [load_bundle(found, files, keys=keys) for found in folders]
        bundles.sort(key=lambda bundle: (bundle.manifest.created, bundle.folder.name), reverse=True)
        self.bundles = tuple(bundles)
        self._by_id = {bundle.bundle_id: bundle for bundle in reversed(bundles)}

    @property
    def preferred(self) -> Bundle:
        """The bundle to use where there is a choice."""
        return self.bundles[0]

    def get(self, bundle_id: str) -> Bundle:
        """Return the bundle of an id. Raises UnknownBundleError."""
        if bundle_id not in self._by_id:
            known = ", ".join(known_id[:12] for known_id in self._by_id)
            raise UnknownBundleError(f"bundle {bundle_id[:64]!r} is not here; there are: {known}")
        return self._by_id[bundle_id]

    def with_tag(self, tag: int) -> tuple[Bundle, ...]:
        """Return the bundles that a payload's tag can mean: nearly always one or none."""
        return tuple(b for b in self._by_id.values() if bundle_tag(b.bundle_id) == tag)


def bundle_folders(folder: Path) -> list[Path]:
    """Return the folders of a repository that have a manifest, or the folder if it has one.

    Hidden ones are left out: they are what copying programs are not done with.
    """
    if is_bundle(folder):
        return [folder]
    if not folder.is_dir():
        return []
    return sorted(
        found.parent
        for found in folder.glob(f"*/{MANIFEST}")
        if not found.parent.name.startswith(".")
    )


def is_bundle(folder: Path) -> bool:
    """Whether a folder is a bundle itself, and no repository of bundles."""
    return (folder / MANIFEST).is_file()


def _entry(manifest: Manifest, name: str) -> FileEntry:
    if not is_plain_name(name) or name not in manifest.files:
        raise ManifestError(f"bundle {manifest.name!r} has no file {name!r}")
    return manifest.files[name]


def _verified(path: Path, entry: FileEntry) -> bytes:
    data = read_bounded(path, MAX_FILE_BYTES)
    _verify(path, data, entry)
    return data


def _verify(path: Path, data: bytes, entry: FileEntry) -> None:
    found = hashlib.sha256(data).hexdigest()
    if len(data) != entry.bytes or found != entry.sha256:
        raise BundleHashError(
            f"{path} is not the file that the manifest names: {len(data)} bytes with SHA-256 "
            f"{found[:12]}…, expected {entry.bytes} with {entry.sha256[:12]}…; get it again"
        )


def _check_is_whole(path: Path, entry: FileEntry) -> None:
    try:
        found = path.stat()
    except FileNotFoundError:
        raise IncompleteBundleError(f"{path} is missing; get it again") from None
    except OSError as error:
        raise BundleHashError(f"{path} cannot be read: {error}") from error
    if S_ISREG(found.st_mode) and found.st_size < entry.bytes:
        raise IncompleteBundleError(
            f"{path} is not the file that the manifest names: it has {found.st_size} of "
            f"{entry.bytes} bytes; get it again"
        )
