"""An archive's faces through another bundle's classifier, a part at a time, in any process.

    plan ─▶ rescore_part (here, in a process, on a cluster: it is a function of its job) ─▶ gather

What there is of an earlier run that was stopped is kept and not made again. Needs `mien[archive]`.
"""

import json
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cloud_recognizer.archive import files
from cloud_recognizer.archive.planning import CLASSIFIER, PLAN, PartJob, Plan
from cloud_recognizer.model import Network, RuntimeOptions
from mien.bitstream import EncodedFace, Limits
from mien.bundle import load_bundle
from mien.codec import ChunkCodec
from mien.compiled_reader import fastest_reader
from mien.errors import BitstreamError, SourceError

# Chunks that are decoded together, which bounds memory.
BATCH_CHUNKS: Final = 1024

_UNDECODABLE: Final = "undecodable"
_COLUMNS: Final = [
    pa.field("device_id", pa.string()),
    pa.field("epoch", pa.uint64()),
    pa.field("seq", pa.uint64()),
    pa.field("index", pa.uint32()),
    pa.field("time_unix_ms", pa.int64()),
    pa.field("track_id", pa.uint64()),
    pa.field("x", pa.int32()),
    pa.field("y", pa.int32()),
    pa.field("width", pa.int32()),
    pa.field("height", pa.int32()),
    pa.field("expression", pa.string()),
    pa.field("probability", pa.float32()),
    pa.field("probabilities", pa.list_(pa.float32())),
]


@dataclass(frozen=True)
class PartDone:
    """What a part gave. gone: it was deleted before its turn."""

    part: str
    faces: int = 0
    gone: bool = False


@lru_cache(maxsize=4)
def _codec(archive: str, bundle_id: str) -> ChunkCodec:
    return files.coded_with(Path(archive), bundle_id).codec(Limits(), fastest_reader)


@lru_cache(maxsize=1)
def _classifier(bundle: str, bundle_id: str) -> tuple[tuple[str, ...], Network]:
    loaded = load_bundle(Path(bundle), (CLASSIFIER,), bundle_id)
    return loaded.manifest.expressions, Network(loaded, CLASSIFIER, RuntimeOptions())


def rescore_part(job: PartJob) -> PartDone:
    """Write the faces of one part, a row each, into the output folder, under the part's name.

    Raises SourceError for a part that is damaged as a file, and for an archive that is not seen
    here, BundleError, and OSError.
    """
    archive = Path(job.archive)
    try:
        rows = files.read(archive / job.part, files.SCHEMA.names).to_pylist()
    except FileNotFoundError:
        if not archive.is_dir():  # not mounted here, and nothing is known of the part
            raise SourceError(
                f"the worker on {platform.node()} does not see the archive {archive}: mount it "
                "there under this path, and give the same command again"
            ) from None
        return PartDone(job.part, gone=True)
    skip = set(job.skip)
    kept = [row for number, row in enumerate(rows) if number not in skip]
    expressions, classify = _classifier(job.bundle, job.bundle_id)
    target = Path(job.output) / job.part
    unfinished = target.with_suffix(".tmp")
    faces = undecodable = 0
    with (
        files.own_file(unfinished) as file,
        pq.ParquetWriter(file, schema_of(expressions)) as writer,
    ):
        for start in range(0, len(kept), BATCH_CHUNKS):
            chunks, damaged = _decoded(job.archive, kept[start : start + BATCH_CHUNKS])
            undecodable += damaged
            if chunks:
                table = _answers(chunks, expressions, classify)
                faces += len(table)
                writer.write_table(table)
        # In the file, for a run that is stopped forgets.
        writer.add_key_value_metadata({_UNDECODABLE: str(undecodable)})
    unfinished.replace(target)
    return PartDone(job.part, faces)


def schema_of(expressions: tuple[str, ...]) -> pa.Schema:
    """Of the output. Its metadata has the order of the probabilities."""
    return pa.schema(_COLUMNS, {"expressions": json.dumps(expressions)})


Chunk = tuple[dict[str, Any], tuple[EncodedFace, ...]]


def _decoded(archive: str, rows: list[dict[str, Any]]) -> tuple[list[Chunk], int]:
    """The chunks that can be decoded, in order, and how many cannot."""
    answers: list[tuple[EncodedFace, ...] | BitstreamError | None] = [None] * len(rows)
    for bundle_id in {row["bundle_id"] for row in rows}:
        positions = [n for n, row in enumerate(rows) if row["bundle_id"] == bundle_id]
        payloads = [rows[position]["payload"] for position in positions]
        read = _codec(archive, bundle_id).decode_chunks(payloads)
        for position, answer in zip(positions, read, strict=True):
            answers[position] = answer
    good = [
        (row, answer)
        for row, answer in zip(rows, answers, strict=True)
        if isinstance(answer, tuple)
    ]
    return good, len(rows) - len(good)


def _answers(chunks: list[Chunk], expressions: tuple[str, ...], classify: Network) -> pa.Table:
    every = [face for _, faces in chunks for face in faces]
    symbols = np.stack([face.symbols for face in every])
    level = np.array([face.level for face in every], np.int32)
    probabilities = classify(symbols=symbols, level=level).astype(np.float32, copy=False)
    best = probabilities.argmax(axis=1)
    said = zip(*_said(chunks), strict=True)
    columns: dict[str, Any] = {
        field.name: list(values) for field, values in zip(_COLUMNS[:-3], said, strict=True)
    }
    columns["expression"] = [expressions[top] for top in best]
    columns["probability"] = probabilities[np.arange(len(best)), best]
    columns["probabilities"] = _rows(probabilities)
    return pa.table(columns, schema_of(expressions))


def _said(chunks: list[Chunk]) -> Iterator[tuple[object, ...]]:
    """What the payloads and their rows say of each face: all but the last three columns."""
    for row, faces in chunks:
        for index, face in enumerate(faces):
            box = face.box
            yield (
                *(row["device_id"], row["epoch"], row["seq"], index),
                *(_unix_ms(row["epoch_start_unix_ms"] + face.time_ms), face.track_id),
                *(box.x, box.y, box.width, box.height),
            )


def _unix_ms(unix_ms: int) -> int | None:
    """None for what the column cannot hold: recognizers took any start of an epoch once."""
    return unix_ms if abs(unix_ms) < 1 << 63 else None


def _rows(values: NDArray[np.float32]) -> pa.ListArray:
    starts = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
    return pa.ListArray.from_arrays(starts, values.ravel())


def gather(done: Plan, output: Path) -> tuple[int, int]:
    """Put the parts together into one file.

    Returns its rows, one a face, and how many chunks are left out, for they cannot be decoded.
    Raises SourceError, and keeps the plan, where a part is neither done nor gone.
    """
    found = [path for part in done.parts if (path := done.work / part).exists()]
    _check_gone(done, sorted(set(done.parts) - {path.name for path in found}))
    expressions, _ = _classifier(str(done.bundle), done.bundle_id)
    unfinished = output.with_name(output.name + ".tmp")
    faces = undecodable = 0
    with (
        files.own_file(unfinished) as file,
        pq.ParquetWriter(file, schema_of(expressions)) as writer,
    ):
        for path in found:
            with pq.ParquetFile(path) as part:
                undecodable += int(part.metadata.metadata[_UNDECODABLE.encode()])
                for batch in part.iter_batches():
                    writer.write_batch(batch)
                    faces += batch.num_rows
    unfinished.replace(output)
    for path in (*found, done.work / PLAN, *done.work.glob("*.tmp")):
        path.unlink()
    done.work.rmdir()
    return faces, undecodable


def _check_gone(done: Plan, missing: list[str]) -> None:
    """Raises SourceError unless these parts are gone here, too, whatever a worker has said.

    To one with nothing mounted on the archive's folder it is empty; what one writes to a folder of
    its own is not in ours.
    """
    if missing and not done.archive.is_dir():
        raise SourceError(f"the archive {done.archive} is not seen here any more")
    left = [part for part in missing if (done.archive / part).exists()]
    if left:
        raise SourceError(
            f"{len(left)} parts are in the archive and nothing came of them, {left[0]} the first: "
            f"every worker must see {done.archive} and {done.work} under these paths. What is "
            "done stays: give the same command again"
        )
