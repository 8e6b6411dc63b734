"""Archives that a recognizer has written, or that a test writes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from cloud_recognizer.archive.files import ArchivedChunk, ArchiveFiles
from mien.bundle import Bundle
from mien.cli.main import main
from mien.exit_codes import ExitCode
from tests.support.recognizer import payload

START_MS = 1_700_000_000_000
FACES = 3
CHUNKS = 6


def chunk(bundle: Bundle, seq: int, *, device_id: str = "door", at_ms: int = 0) -> ArchivedChunk:
    """A chunk of three faces; another seq is other faces."""
    coded = payload(bundle, FACES, seed=seq)
    return ArchivedChunk(device_id, 1, seq, START_MS, START_MS + at_ms, bundle.bundle_id, coded)


def write_archive(folder: Path, bundle: Bundle, *parts: Sequence[ArchivedChunk]) -> Path:
    """An archive of such parts, the first the oldest."""
    files = ArchiveFiles(folder, 1 << 30)
    files.make()
    files.keep_bundle(bundle)
    for part in parts:
        files.write(part)
    return folder


def three_parts(folder: Path, bundle: Bundle) -> Path:
    """An archive of CHUNKS chunks, numbered from 1."""
    numbered = [chunk(bundle, seq, at_ms=seq) for seq in range(1, 1 + CHUNKS)]
    return write_archive(folder, bundle, *zip(*[iter(numbered)] * 2, strict=True))


def command(archive: Path, bundle: Bundle, output: Path, *more: str) -> list[str]:
    """What to type."""
    return [
        *("rescore", str(archive)),
        *("--bundle", str(bundle.folder), "--output", str(output), *more),
    ]


def rescored(archive: Path, bundle: Bundle, output: Path, *more: str) -> list[dict[str, Any]]:
    """The rows that the command has written."""
    assert main(command(archive, bundle, output, *more)) == ExitCode.OK
    return read(output)


def read(output: Path) -> list[dict[str, Any]]:
    """The rows of a file."""
    with pq.ParquetFile(output) as file:
        return list(file.read().to_pylist())
