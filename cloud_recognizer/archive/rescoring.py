"""An archive's faces through another bundle's classifier, a part at a time, in any process.

    plan ─▶ rescore_part (here, in a process, on a cluster: it is a function of its job) ─▶ gather

What there is of an earlier run that was stopped is kept and not made again: the plan is written
down, so that a part that comes, or is deleted by its age, meanwhile changes nothing. A chunk may
lie in an archive twice, for devices send again; its first row counts. Needs `mien[archive]`.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cloud_recognizer.archive import files
from cloud_recognizer.model import Network, RuntimeOptions
from mien.bitstream import EncodedFace, Limits
from mien.bundle import Bundle, load_bundle
from mien.codec import ChunkCodec
from mien.compiled_reader import fastest_reader
from mien.errors import BitstreamError, BundleError, ConfigError, SourceError
from mien.signing import TrustedKeys

PLAN: Final = "plan.json"
CLASSIFIER: Final = "classifier.onnx"
# Chunks that are decoded together, which bounds memory.
BATCH_CHUNKS: Final = 1024

_UNDECODABLE: Final = "undecodable"
_KEY: Final = ["device_id", "epoch", "seq"]
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
class PartJob:
    """A part to rescore: everything that a process, here or elsewhere, must know.

    Paths, as on every machine that takes part. bundle_id: of the bundle that was checked when the
    run was planned. skip: rows that an earlier row repeats.
    """

    archive: str
    part: str
    skip: tuple[int, ...]
    bundle: str
    bundle_id: str
    output: str


@dataclass(frozen=True)
class PartDone:
    """What a part gave. gone: it was deleted before its turn."""

    part: str
    faces: int = 0
    gone: bool = False


@dataclass(frozen=True)
class Plan:
    """The parts of a run, each with the rows to skip. work: the folder of what is done so far."""

    archive: Path
    bundle: Path
    bundle_id: str
    work: Path
    parts: dict[str, tuple[int, ...]]

    @property
    def jobs(self) -> list[PartJob]:
        """The parts that are not done yet, the oldest first."""
        return [
            PartJob(
                *(str(self.archive), part, skip),
                *(str(self.bundle), self.bundle_id, str(self.work)),
            )
            for part, skip in self.parts.items()
            if not (self.work / part).exists()
        ]


def plan(
    archive: Path,
    bundle: Path,
    work: Path,
    *,
    any_analysis: bool = False,
    keys: TrustedKeys | None = None,
) -> Plan:
    """What is to be done, or was begun in the folder `work`, which is made if need be.

    any_analysis: whether the classifier may be of a bundle with another analysis transform. keys:
    those of which one must have signed the bundle; None: it need not be signed.

    Raises SourceError without an archive, ConfigError where `work` is of another run, BundleError
    for a bundle that cannot be used, or whose classifier takes other latents than the archive's.
    """
    parts = files.parts(archive)
    if not parts and not (work / PLAN).exists():
        raise SourceError(f"there are no parts of an archive in {archive}")
    classifier = load_bundle(bundle, (CLASSIFIER,), keys=keys)
    started = _begun(work, archive, classifier.bundle_id)
    if started is None:
        started = _first_rows(parts)
        for bundle_id in _bundle_ids(parts):
            _check_fits(files.coded_with(archive, bundle_id), classifier, any_analysis)
        work.mkdir(mode=0o700, parents=True, exist_ok=True)
        _note(work, archive, classifier.bundle_id, started)
    return Plan(archive.resolve(), bundle.resolve(), classifier.bundle_id, work.resolve(), started)


def _begun(work: Path, archive: Path, bundle_id: str) -> dict[str, tuple[int, ...]] | None:
    try:
        document = json.loads((work / PLAN).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    if (document["archive"], document["bundle_id"]) != (str(archive.resolve()), bundle_id):
        raise ConfigError(
            f"{work} holds what a run of another archive or bundle has begun: delete it, or give "
            "another --output"
        )
    return {part: tuple(skip) for part, skip in document["parts"].items()}


def _note(work: Path, archive: Path, bundle_id: str, parts: dict[str, tuple[int, ...]]) -> None:
    document = {"archive": str(archive.resolve()), "bundle_id": bundle_id, "parts": parts}
    unfinished = work / f"{PLAN}.tmp"
    with _own_file(unfinished) as file:
        file.write(json.dumps(document).encode())
    unfinished.replace(work / PLAN)


def _first_rows(parts: list[Path]) -> dict[str, tuple[int, ...]]:
    """Part → rows whose chunk has come before, in it or in an earlier part."""
    read = [_read(part, _KEY) for part in parts]
    starts = np.cumsum([0, *(len(table) for table in read)])
    keys = pa.concat_tables(read).append_column("row", pa.array(np.arange(starts[-1])))
    firsts = keys.group_by(_KEY).aggregate([("row", "min")])["row_min"].to_numpy()
    repeated = np.ones(starts[-1], bool)
    repeated[firsts] = False
    return {
        part.name: tuple(np.flatnonzero(repeated[start:end]).tolist())
        for part, start, end in zip(parts, starts, starts[1:], strict=False)
    }


def _read(part: Path, columns: list[str]) -> pa.Table:
    try:
        return pq.ParquetFile(part).read(columns)
    except pa.ArrowException as error:
        raise SourceError(f"{part} is no part of an archive, or damaged: {error}") from error


def _bundle_ids(parts: list[Path]) -> list[str]:
    found: set[str] = set()
    for part in parts:
        found.update(_read(part, ["bundle_id"])["bundle_id"].unique().to_pylist())
    return sorted(found)


def _check_fits(coded: Bundle, classifier: Bundle, any_analysis: bool) -> None:
    made, taken = coded.manifest.latent.shape, classifier.manifest.latent.shape
    if made != taken:
        raise BundleError(
            f"the archive has chunks of bundle {coded.bundle_id[:12]}, whose latents are {made}; "
            f"the classifier of {classifier.folder} takes {taken}"
        )
    files_ = coded.manifest.files, classifier.manifest.files
    gains = coded.tables.gains, classifier.tables.gains
    same = len({entries["analysis.onnx"].sha256 for entries in files_}) == 1
    if any_analysis or (same and np.array_equal(*gains)):
        return
    raise BundleError(
        f"the archive has chunks of bundle {coded.bundle_id[:12]}, whose analysis transform, or "
        f"gains of levels, are not those of {classifier.folder}: latents of the same shape need "
        "not mean the same. "
        "--any_analysis classifies them all the same"
    )


@lru_cache(maxsize=4)
def _codec(archive: str, bundle_id: str) -> ChunkCodec:
    return files.coded_with(Path(archive), bundle_id).codec(Limits(), fastest_reader)


@lru_cache(maxsize=1)
def _classifier(bundle: str, bundle_id: str) -> tuple[tuple[str, ...], Network]:
    loaded = load_bundle(Path(bundle), (CLASSIFIER,), bundle_id)
    return loaded.manifest.expressions, Network(loaded, CLASSIFIER, RuntimeOptions())


def rescore_part(job: PartJob) -> PartDone:
    """Write the faces of one part, a row each, into the output folder, under the part's name.

    Raises SourceError for a part that is damaged as a file, BundleError, and OSError.
    """
    try:
        rows = _read(Path(job.archive) / job.part, files.SCHEMA.names).to_pylist()
    except FileNotFoundError:
        return PartDone(job.part, gone=True)
    skip = set(job.skip)
    kept = [row for number, row in enumerate(rows) if number not in skip]
    expressions, classify = _classifier(job.bundle, job.bundle_id)
    target = Path(job.output) / job.part
    unfinished = target.with_suffix(".tmp")
    faces = undecodable = 0
    with (
        _own_file(unfinished) as file,
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


def _own_file(path: Path) -> IO[bytes]:
    """A new file that its own user alone can read, for it says of each face where and when."""
    path.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o600), "wb")


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
    """
    found = [path for part in done.parts if (path := done.work / part).exists()]
    expressions, _ = _classifier(str(done.bundle), done.bundle_id)
    unfinished = output.with_name(output.name + ".tmp")
    faces = undecodable = 0
    with (
        _own_file(unfinished) as file,
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
