"""Archives that a recognizer has written, or that a test writes."""

from collections.abc import Sequence
from pathlib import Path

from cloud_recognizer.archive.files import ArchivedChunk, ArchiveFiles
from mien.bundle import Bundle
from tests.support.recognizer import payload

START_MS = 1_700_000_000_000
FACES = 3


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
