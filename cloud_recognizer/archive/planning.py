"""What a run over an archive has to do: its parts, and of each the rows that repeat a chunk.

The plan is written down before anything is done, so that a run that was stopped goes on, and a
part that comes, or is deleted by its age, meanwhile changes nothing. A chunk may lie in an archive
twice, for devices send again; its first row counts. Needs `mien[archive]`.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from cloud_recognizer.archive import files
from mien.bundle import Bundle, load_bundle
from mien.errors import BundleError, ConfigError, SourceError
from mien.signing import TrustedKeys

PLAN: Final = "plan.json"
CLASSIFIER: Final = "classifier.onnx"

_KEY: Final = ["device_id", "epoch", "seq"]


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
    with files.own_file(unfinished) as file:
        file.write(json.dumps(document).encode())
    unfinished.replace(work / PLAN)


def _first_rows(parts: list[Path]) -> dict[str, tuple[int, ...]]:
    """Part → rows whose chunk has come before, in it or in an earlier part."""
    read = [files.read(part, _KEY) for part in parts]
    starts = np.cumsum([0, *(len(table) for table in read)])
    keys = pa.concat_tables(read).append_column("row", pa.array(np.arange(starts[-1])))
    firsts = keys.group_by(_KEY).aggregate([("row", "min")])["row_min"].to_numpy()
    repeated = np.ones(starts[-1], bool)
    repeated[firsts] = False
    return {
        part.name: tuple(np.flatnonzero(repeated[start:end]).tolist())
        for part, start, end in zip(parts, starts, starts[1:], strict=False)
    }


def _bundle_ids(parts: list[Path]) -> list[str]:
    found: set[str] = set()
    for part in parts:
        found.update(files.read(part, ["bundle_id"])["bundle_id"].unique().to_pylist())
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
