"""From a finished run to a bundle: tables of integers, ONNX files, probe, model card."""

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mien.bundle import load_bundle, write_manifest
from mien.calibration import Calibration
from mien.manifest import ImageSpec, LatentSpec
from mien.probe import Probe, golden_payloads
from mien.tables import CdfTables, integer_cdf
from trainer.augment import Augmentation, augment
from trainer.calibration import calibrate, fit_temperature
from trainer.card import model_card
from trainer.data.faces import EXPRESSIONS, FACE_SIZE, FaceSet
from trainer.data.layout import read_train_and_valid
from trainer.evaluate import BUNDLE_FILES, PIXEL_FILE, evaluate_faces, recognised
from trainer.examples import as_float
from trainer.fit import Trained
from trainer.onnx_export import (
    AnalysisGraph,
    ClassifierGraph,
    PixelGraph,
    SynthesisGraph,
    write_onnx,
)
from trainer.runtime import Network, symbols_of
from trainer.schematic import schematic_faces
from trainer.track_tables import with_tracks

# Where the five landmarks of an average FER2013 face lie, px of the 48×48 crop, pixel centres at
# integers: medians of two detectors over the validation faces, made symmetric.
FER_LANDMARKS = ((14.59, 18.06), (32.4, 18.06), (23.5, 28.46), (16.23, 36.67), (30.78, 36.67))
PROBE_FACES = 16
# How many observations the parametric prior counts for, beside the latents that were seen.
PRIOR_WEIGHT = 200.0
# Symbols less likely than this share one escape bin.
RAREST_BIN = 2.0**-13
SYMBOL_RANGE = 40


def export(trained: Trained, data: Path, folder: Path, name: str) -> str:
    """Write a bundle and return its id.

    The tables are fitted on training latents; temperature, calibration and the figures of the
    manifest are taken on the validation split. The calibration is of what the bundle answers to
    decoded symbols, so its temperature comes on top of the one that is in the network already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    train, valid = read_train_and_valid(data)
    _write_networks(trained, valid, folder)
    tables = fit_tables(trained, folder, train)
    tables.save(folder / "tables.npz")
    _write_probe(folder, tables)
    seal = _sealer(folder, name, tables)
    # The manifest holds the figures, and what is measured needs a manifest to be loaded.
    (folder / "MODEL_CARD.md").write_text("")
    seal({}, None)
    *_, probabilities = recognised(load_bundle(folder, BUNDLE_FILES), valid.pixels[:])
    calibration = calibrate(probabilities, valid.majority)
    seal({}, calibration)
    figures = evaluate_faces(load_bundle(folder, BUNDLE_FILES), valid)
    card = model_card(name, trained.config.out, len(train), figures)
    (folder / "MODEL_CARD.md").write_text(card)
    numbers = {key: v for key, v in figures.items() if isinstance(v, int | float)}
    return seal(numbers, calibration)


def _sealer(
    folder: Path, name: str, tables: CdfTables
) -> Callable[[dict[str, Any], Calibration | None], str]:
    def seal(figures: dict[str, Any], calibration: Calibration | None) -> str:
        return write_manifest(
            folder,
            name=name,
            created=datetime.datetime.now(datetime.UTC).date().isoformat(),
            expressions=EXPRESSIONS,
            image=ImageSpec(1, FACE_SIZE, FACE_SIZE, FER_LANDMARKS),
            latent=LatentSpec(*tables.shape),
            figures=figures,
            files=BUNDLE_FILES,
            calibration=calibration,
        )

    return seal


def _write_networks(trained: Trained, valid: FaceSet, folder: Path) -> None:
    joint = trained.joint
    face = torch.zeros(2, 1, FACE_SIZE, FACE_SIZE, dtype=torch.uint8)
    symbols = torch.zeros(2, *joint.prior.shape, dtype=torch.int32)
    with torch.no_grad():
        logits = torch.cat(
            [
                joint.classifier(torch.round(joint.analysis(part)))
                for part in as_float(valid.pixels[:]).split(256)  # type: ignore[no-untyped-call]  # torch's own gap
            ]
        )
    temperature = fit_temperature(logits.numpy(), valid.majority)
    graphs: dict[str, tuple[nn.Module, torch.Tensor, str, str]] = {
        "analysis.onnx": (AnalysisGraph(joint.analysis), face, "face", "y"),
        "classifier.onnx": (
            ClassifierGraph(joint.classifier, temperature),
            symbols,
            "symbols",
            "probabilities",
        ),
        "synthesis.onnx": (SynthesisGraph(joint.synthesis), symbols, "symbols", "face"),
        PIXEL_FILE: (PixelGraph(trained.pixel), face, "face", "probabilities"),
    }
    for file, (graph, example, source, target) in graphs.items():
        write_onnx(graph, example, source, target, folder / file)


def fit_tables(trained: Trained, folder: Path, train: FaceSet) -> CdfTables:
    """Integer CDFs from the latents of training faces, as they are and augmented, and moving.

    The trained prior counts for a few hundred faces: it fills in what was not seen.
    """
    analysis = Network(folder / "analysis.onnx")
    generator = torch.Generator().manual_seed(0)
    counts = np.zeros((2 * SYMBOL_RANGE + 1, *trained.joint.prior.shape))
    for start in range(0, len(train), 1024):
        faces = as_float(train.pixels[start : start + 1024])
        changed = (augment(faces, Augmentation(), generator) * 255).round().byte().numpy()
        for pixels in (train.pixels[start : start + 1024], changed):
            counts += _histogram(symbols_of(analysis(pixels)))
    prior = trained.joint.prior.pmf(-SYMBOL_RANGE, SYMBOL_RANGE).numpy().astype(np.float64)
    pmf = counts + PRIOR_WEIGHT * prior
    first = tables_from_pmf(pmf / pmf.sum(axis=0), -SYMBOL_RANGE)
    return with_tracks(first, analysis, Network(folder / "classifier.onnx"), train)


def _histogram(symbols: NDArray[np.int32]) -> NDArray[np.float64]:
    span = np.arange(-SYMBOL_RANGE, SYMBOL_RANGE + 1)[:, None, None, None]
    counts = [(symbols == value).sum(axis=0) for value in span[:, 0, 0, 0]]
    return np.asarray(np.stack(counts), np.float64)


def tables_from_pmf(pmf: NDArray[np.float64], lowest: int) -> CdfTables:
    """CdfTables from probabilities (S, C, H, W) of the symbols lowest, lowest + 1, ….

    Each position keeps the run of symbols from its first to its last that is likelier than
    RAREST_BIN; what lies outside goes to the escape bin.
    """
    rows, offsets = [], []
    for row in pmf.reshape(len(pmf), -1).T:
        likely = np.flatnonzero(row >= RAREST_BIN)
        first, last = int(likely[0]), int(likely[-1])
        inside = row[first : last + 1]
        rows.append(integer_cdf(np.append(inside, max(1 - float(inside.sum()), 2.0**-16))))
        offsets.append(lowest + first)
    return CdfTables.from_rows(rows, offsets, (pmf.shape[1], pmf.shape[2], pmf.shape[3]))


def _write_probe(folder: Path, tables: CdfTables) -> None:
    faces = schematic_faces(PROBE_FACES)
    symbols = symbols_of(Network(folder / "analysis.onnx")(faces))
    probabilities = Network(folder / "classifier.onnx")(symbols).astype(np.float32)
    payloads = golden_payloads(tables, symbols)
    Probe(faces, symbols, probabilities, payloads).save(folder / "probe.npz")
