"""From a finished run to a bundle: tables of integers, ONNX files, probe, model card."""

import datetime
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mien.bundle import LAYER_FILES, load_bundle, write_manifest
from mien.calibration import Calibration
from mien.holding import quantised
from mien.layers import LayersCodec
from mien.manifest import ImageSpec, LatentSpec
from mien.probe import Probe, golden_payloads, probe_levels
from mien.tables import CdfTables
from trainer.beyond import beyond
from trainer.calibration import calibrate, fit_temperature
from trainer.card import model_card
from trainer.data.faces import EXPRESSIONS, FACE_SIZE, FaceSet
from trainer.data.layout import read_train_and_valid
from trainer.evaluate import (
    BUNDLE_FILES,
    PIXEL_FILE,
    analysed,
    classified,
    default_level,
    evaluate_faces,
)
from trainer.examples import device_of, in_parts
from trainer.layer_tables import layer_tables
from trainer.level_tables import latents_of, level_tables
from trainer.models.base import BaseModel
from trainer.models.consistency import Consistency
from trainer.onnx_export import (
    AnalysisGraph,
    ClassifierGraph,
    EnhancementGraph,
    PixelGraph,
    SynthesisGraph,
    write_onnx,
)
from trainer.placing import latents
from trainer.run_folder import Trained
from trainer.runtime import AnalysisNetwork, Network
from trainer.schematic import schematic_faces
from trainer.second_look import add_doubt
from trainer.synthesis_stage import coded
from trainer.track_tables import with_tracks

# Where the five landmarks of an average FER2013 face lie, px of the 48×48 crop, pixel centres at
# integers: medians of two detectors over the validation faces, made symmetric.
FER_LANDMARKS = ((14.59, 18.06), (32.4, 18.06), (23.5, 28.46), (16.23, 36.67), (30.78, 36.67))
PROBE_FACES = 64
# Some 6,000 faces: enough for the strongest directions of their errors.
ERROR_PARTS = 24
Seal = Callable[[dict[str, Any], Calibration | None], str]


def export(trained: Trained, data: Path, folder: Path, name: str) -> str:
    """Write a bundle and return its id.

    The tables are fitted on training latents; temperatures, calibration, default level and the
    figures of the manifest are taken on the validation split. The calibration is of what the bundle
    answers to decoded symbols at its default level, so its temperature comes on top of the one that
    is in the network already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    train, valid = read_train_and_valid(data)
    _write_networks(trained, valid, folder)
    gains = torch.exp(trained.base.log_gains).detach().numpy()
    channels = trained.config.enhancement.layer_channels
    layers = write_tables(folder, gains, train, valid, channels)
    _write_synthesis(trained, LayersCodec(layers), train, folder)
    card = (trained.config.out, len(train))
    return finish(folder, train, valid, name, lambda figures: model_card(name, *card, figures))


def write_tables(
    folder: Path,
    gains: NDArray[np.float32],
    train: FaceSet,
    valid: FaceSet,
    layer_channels: tuple[int, ...],
) -> list[CdfTables]:
    """Tables of the base and all layers, fitted on training faces, for the networks in a folder.

    The analysis learns which faces to look at twice, if it does not know. Returns the layers'.
    """
    gains = np.asarray(gains, np.float32)
    add_doubt(folder, gains, train, valid)
    analysis = AnalysisNetwork(folder / "analysis.onnx")
    classifier = Network(folder / "classifier.onnx")
    first = level_tables(latents_of(analysis, train), gains)
    tables = with_tracks(first, analysis, classifier, train)
    tables.save(folder / "tables.npz")
    enhancement = Network(folder / "enhancement.onnx")
    layers = layer_tables(analysis, enhancement, tables, train, layer_channels)
    for file, of_layer in zip(LAYER_FILES, layers, strict=True):
        of_layer.save(folder / file)
    _write_probe(folder, tables)
    return layers


def finish(
    folder: Path,
    train: FaceSet,
    valid: FaceSet,
    name: str,
    card: Callable[[dict[str, Any]], str],
) -> str:
    """Measure a bundle that has all but figures, and seal it. Returns its id.

    card: the model card for the figures.
    """
    (folder / "MODEL_CARD.md").write_text("")
    # The manifest holds the figures, and what is measured needs a manifest to be loaded.
    seal = _sealer(folder, name, 0)
    seal({}, None)
    bundle = load_bundle(folder, BUNDLE_FILES)
    level = default_level(bundle, valid)
    seal = _sealer(folder, name, level)
    symbols = quantised(analysed(bundle, valid.pixels[:]), bundle.tables.gains[level])
    calibration = calibrate(classified(bundle, symbols, level), valid.majority)
    seal({}, calibration)
    bundle = load_bundle(folder, BUNDLE_FILES)
    figures = {**evaluate_faces(bundle, valid), "beyond": beyond(bundle, train, valid)}
    (folder / "MODEL_CARD.md").write_text(card(figures))
    tables = ("levels", "beyond")
    wanted = {key: v for key, v in figures.items() if isinstance(v, int | float) or key in tables}
    return seal(wanted, calibration)


def _sealer(folder: Path, name: str, level: int) -> Seal:
    tables = CdfTables.load((folder / "tables.npz").read_bytes())

    def seal(figures: dict[str, Any], calibration: Calibration | None) -> str:
        return write_manifest(
            folder,
            name=name,
            created=datetime.datetime.now(datetime.UTC).date().isoformat(),
            expressions=EXPRESSIONS,
            image=ImageSpec(1, FACE_SIZE, FACE_SIZE, FER_LANDMARKS),
            latent=LatentSpec(*tables.shape, level),
            figures=figures,
            files=BUNDLE_FILES,
            calibration=calibration,
        )

    return seal


def _write_networks(trained: Trained, valid: FaceSet, folder: Path) -> None:
    """All that is there before tables are: all but the synthesis."""
    base, enhancement = trained.base, trained.enhancement
    face = torch.zeros(2, 1, FACE_SIZE, FACE_SIZE, dtype=torch.uint8)
    latent = _latent(base)
    write_onnx(AnalysisGraph(base), {"face": face}, "y", folder / "analysis.onnx")
    classifier = ClassifierGraph(base, _temperatures(trained, valid))
    write_onnx(classifier, latent, "probabilities", folder / "classifier.onnx")
    analysis = EnhancementGraph(base, enhancement)
    write_onnx(analysis, {"face": face} | latent, "e", folder / "enhancement.onnx")
    write_onnx(PixelGraph(trained.pixel), {"face": face}, "probabilities", folder / PIXEL_FILE)


def _write_synthesis(trained: Trained, layers: LayersCodec, train: FaceSet, folder: Path) -> None:
    base, enhancement = trained.base, trained.enhancement
    consistency = Consistency(base.analysis, reconstruction_errors(trained, layers, train))
    synthesis = SynthesisGraph(base, enhancement, consistency)
    values = {"enhancement": torch.zeros(2, *layers.shape, dtype=torch.int32)}
    write_onnx(synthesis, _latent(base) | values, "face", folder / "synthesis.onnx")


def _latent(base: BaseModel) -> dict[str, torch.Tensor]:
    return {
        "symbols": torch.zeros(2, *base.prior.shape, dtype=torch.int32),
        "level": torch.zeros(2, dtype=torch.int32),
    }


@torch.no_grad()
def reconstruction_errors(trained: Trained, layers: LayersCodec, train: FaceSet) -> torch.Tensor:
    """What all layers leave of training faces at the middle level, (N, P) in 0..1."""
    base, enhancement, errors = trained.base, trained.enhancement, []
    for faces, _ in islice(in_parts(train, device_of(base)), ERROR_PARTS):
        level = torch.full((len(faces),), len(base.log_gains) // 2)
        drawn = enhancement.synthesis(*coded(enhancement, base, layers, faces, level))
        errors.append((drawn.clamp(0, 1) - faces).flatten(1))
    return torch.cat(errors)


@torch.no_grad()
def _temperatures(trained: Trained, valid: FaceSet) -> torch.Tensor:
    """Of each level, the temperature at which its answers are as sure as they are right."""
    base, found = trained.base, []
    y = latents(base, valid)
    for index in range(len(base.log_gains)):
        level = torch.full((len(y),), index)
        logits = base.classifier(base.coded(y, level)[0], level)
        found.append(fit_temperature(logits.numpy(), valid.majority))
    return torch.tensor(found)


def _write_probe(folder: Path, tables: CdfTables) -> None:
    faces = schematic_faces(PROBE_FACES)
    level = probe_levels(len(faces), tables)
    y = AnalysisNetwork(folder / "analysis.onnx")(faces)
    symbols = quantised(y, tables.gains[level])
    probabilities = Network(folder / "classifier.onnx")(symbols, level).astype(np.float32)
    payloads = golden_payloads(tables, symbols)
    Probe(faces, symbols, probabilities, payloads).save(folder / "probe.npz")
