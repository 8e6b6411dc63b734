"""New tables for a bundle whose networks stay: its rows for later faces counted anew."""

import datetime
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mien.bundle import MANIFEST, load_bundle, write_manifest
from mien.errors import ManifestError, TablesError
from mien.manifest import Manifest
from mien.npz import read_npz
from mien.probe import Probe, golden_payloads, load_probe
from mien.tables import CdfTables
from trainer.data.layout import read_train_and_valid
from trainer.evaluate import BUNDLE_FILES, evaluate_faces
from trainer.runtime import Network
from trainer.track_tables import with_tracks

# Tables of payload version 1: the rows of faces told afresh, and nothing else.
_FIRST_ARRAYS = {"cdf": ("<u4", 2), "sizes": ("<i4", 1), "offsets": ("<i4", 1), "shape": ("<i4", 1)}
_CARD_ROWS = {
    "payload_bytes_per_face": "payload bytes a face",
    "latent_ideal_bytes_per_face": "of which the latent, by the tables",
}


def retable(source: Path, data: Path, folder: Path) -> str:
    """Copy a bundle with new rows for later faces; return the id of the copy.

    data: the dataset it was trained on; rows are counted on its training faces, and the bytes of
    manifest and card measured on its validation faces. Raises BundleError, DatasetError,
    FileExistsError when the folder is there.
    """
    train, valid = read_train_and_valid(data)
    shutil.copytree(source, folder)
    first = first_rows((source / "tables.npz").read_bytes())
    analysis, classifier = Network(source / "analysis.onnx"), Network(source / "classifier.onnx")
    tables = with_tracks(first, analysis, classifier, train)
    tables.save(folder / "tables.npz")
    manifest = Manifest.from_json((source / MANIFEST).read_bytes())
    _seal(folder, manifest, manifest.figures)
    _renew_probe(folder, tables)
    _seal(folder, manifest, manifest.figures)
    measured = evaluate_faces(load_bundle(folder, BUNDLE_FILES), valid)
    card = (folder / "MODEL_CARD.md").read_text()
    for figure, row in _CARD_ROWS.items():
        card = re.sub(rf"\| {row} \| [\d.]+ \|", f"| {row} | {measured[figure]:.2f} |", card)
    (folder / "MODEL_CARD.md").write_text(card)
    figures = {name: measured.get(name, value) for name, value in manifest.figures.items()}
    return _seal(folder, manifest, figures)


def first_rows(data: bytes) -> CdfTables:
    """The rows of faces told afresh, of a bundle's tables of this payload version or the first."""
    try:
        tables = CdfTables.load(data)
    except TablesError:
        try:
            arrays = read_npz(data, _FIRST_ARRAYS)
        except ManifestError as error:
            raise TablesError(str(error)) from error
        rows = [
            cdf[: size + 1]
            for cdf, size in zip(arrays["cdf"], arrays["sizes"].tolist(), strict=True)
        ]
        channels, height, width = arrays["shape"].tolist()
        return CdfTables.from_rows(rows, arrays["offsets"].tolist(), (channels, height, width))
    channels, height, width = tables.shape
    first = tables.rows()[: channels * height * width]
    return CdfTables.from_rows([row for row, _ in first], [at for _, at in first], tables.shape)


def _renew_probe(folder: Path, tables: CdfTables) -> None:
    probe = load_probe(load_bundle(folder, BUNDLE_FILES))
    payloads = golden_payloads(tables, probe.symbols)
    Probe(probe.faces, probe.symbols, probe.probabilities, payloads).save(folder / "probe.npz")


def _seal(folder: Path, manifest: Manifest, figures: Mapping[str, Any]) -> str:
    return write_manifest(
        folder,
        name=manifest.name,
        created=datetime.datetime.now(datetime.UTC).date().isoformat(),
        expressions=manifest.expressions,
        image=manifest.image,
        latent=manifest.latent,
        figures=figures,
        files=BUNDLE_FILES,
        calibration=manifest.calibration,
    )
