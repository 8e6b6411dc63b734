"""The files of an archive: Parquet parts of chunks, and what reads them.

    FOLDER/part-FIRST-RANDOM.parquet   a row a chunk; FIRST: when the first came, Unix ms
    FOLDER/bundles/ID/                 manifest.json and tables.npz of the bundle that coded it

A part is written whole or not at all, and never changed. Its name says its age, so that deleting
by age opens nothing. Needs `mien[archive]`.
"""

import os
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import IO, Final

import pyarrow as pa
import pyarrow.parquet as pq

from mien.bundle import MANIFEST, Bundle, load_bundle
from mien.errors import BundleError, SourceError

BUNDLES: Final = "bundles"
# What decoding a payload takes.
_CODEC_FILES: Final = (MANIFEST, "tables.npz")
_PART: Final = re.compile(r"part-([0-9]{13,16})-[0-9a-f]{8}\.parquet")
_UNFINISHED: Final = ".tmp"

SCHEMA: Final = pa.schema(
    [
        pa.field("device_id", pa.string(), nullable=False),
        pa.field("epoch", pa.uint64(), nullable=False),
        pa.field("seq", pa.uint64(), nullable=False),
        pa.field("epoch_start_unix_ms", pa.int64(), nullable=False),
        pa.field("received_unix_ms", pa.int64(), nullable=False),
        pa.field("bundle_id", pa.string(), nullable=False),
        pa.field("payload", pa.binary(), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True)
class ArchivedChunk:
    """A chunk as it came, with what its device said of it. Fields as in SCHEMA."""

    device_id: str
    epoch: int
    seq: int
    epoch_start_unix_ms: int
    received_unix_ms: int
    bundle_id: str
    payload: bytes


class ArchiveFiles:
    """Owned by one process. max_bytes: of all parts together."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._bundles: set[str] = set()

    def make(self) -> None:
        """See that the folder can be written; remove what an earlier run left. Raises OSError."""
        for folder in (self._folder, self._folder / BUNDLES):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for unfinished in self._folder.glob(f"part-*{_UNFINISHED}"):
            unfinished.unlink()
        if not os.access(self._folder, os.W_OK):
            raise PermissionError(f"{self._folder} cannot be written")

    def keep_bundle(self, bundle: Bundle) -> None:
        """Keep what decodes a bundle's payloads, for the bundle may be gone by then."""
        if bundle.bundle_id in self._bundles:
            return
        folder = self._folder / BUNDLES / bundle.bundle_id
        folder.mkdir(mode=0o700, exist_ok=True)
        for name in _CODEC_FILES:
            if not (folder / name).exists():
                _write(folder / name, bundle.read(name))
        self._bundles.add(bundle.bundle_id)

    def write(self, chunks: Sequence[ArchivedChunk]) -> None:
        """Write a part, one chunk at least.

        Raises OSError; then there is no such part.
        """
        columns = zip(*map(astuple, chunks), strict=True)
        names = [field.name for field in fields(ArchivedChunk)]
        table = pa.table(dict(zip(names, map(list, columns), strict=True)), SCHEMA)
        first_ms = min(chunk.received_unix_ms for chunk in chunks)
        sink = pa.BufferOutputStream()
        # Payloads are coded already; the rest is small.
        pq.write_table(table, sink, compression={name: _codec(name) for name in names})
        name = f"part-{first_ms:013d}-{secrets.token_hex(4)}.parquet"
        _write(self._folder / name, sink.getvalue().to_pybytes())

    def forget(self, before_s: float) -> int:
        """Delete parts with a chunk from before a Unix time; how many. Raises OSError."""
        return _delete(path for path in parts(self._folder) if begun_ms(path) < before_s * 1000)

    def shrink(self) -> int:
        """Delete the oldest parts until the others fit; how many. Raises OSError."""
        kept, room = parts(self._folder), self._max_bytes
        fitting = 0
        for path in reversed(kept):
            room -= path.stat().st_size
            if room < 0:
                break
            fitting += 1
        return _delete(kept[: len(kept) - fitting])

    @property
    def size_bytes(self) -> int:
        """Of all parts."""
        return sum(path.stat().st_size for path in parts(self._folder))


def parts(folder: Path) -> list[Path]:
    """The parts of an archive, the oldest first."""
    return sorted(path for path in folder.glob("part-*.parquet") if _PART.fullmatch(path.name))


def begun_ms(part: Path) -> int:
    """When the first chunk of a part came, Unix time."""
    found = _PART.fullmatch(part.name)
    assert found is not None  # noqa: S101  # `parts` gives no other
    return int(found[1])


def read(part: Path, columns: list[str]) -> pa.Table:
    """Some columns of a part. Raises SourceError for what is none, FileNotFoundError."""
    try:
        return pq.ParquetFile(part).read(columns)
    except pa.ArrowException as error:
        raise SourceError(f"{part} is no part of an archive, or damaged: {error}") from error


def coded_with(folder: Path, bundle_id: str) -> Bundle:
    """The bundle that coded chunks of an archive, as far as decoding goes. Raises BundleError."""
    kept = folder / BUNDLES / bundle_id
    try:
        return load_bundle(kept, _CODEC_FILES, bundle_id)
    except BundleError as error:
        raise BundleError(
            f"the archive's chunks of bundle {bundle_id[:12]} cannot be decoded: {error}"
        ) from error


def own_file(path: Path) -> IO[bytes]:
    """A new file that its own user alone can read, for it says of each face where and when."""
    path.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o600), "wb")


def _codec(name: str) -> str:
    return "none" if name == "payload" else "zstd"


def _delete(paths: Iterable[Path]) -> int:
    count = 0
    for path in paths:
        path.unlink(missing_ok=True)
        count += 1
    return count


def _write(path: Path, data: bytes) -> None:
    """A file with this content, on the disk, or none. Readable by its own user alone."""
    unfinished = path.with_name(path.name + _UNFINISHED)
    handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(handle)
        unfinished.replace(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
