"""The stages of a study, each from what the stages before it left in the study's folder.

pretrain ─ latents ─┐      analysis and prior, taught by what the latents say of expressions
pretrain ───┬── finetune   the codec alone, the classifier frozen
classifier ─┼── joint      both
            ├── grid       finetune with every pair of two loss weights, briefly
            └── adapt      the classifier alone, on what some codec makes of the faces
edge: a classifier that costs as much as the encoder, whose answer is all that is sent
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from trainer.baselines.coding import code_at_random
from trainer.baselines.image_codecs import IMAGE_CODECS
from trainer.data.faces import EXPRESSIONS, FaceSet
from trainer.data.layout import read_train_and_valid
from trainer.data.photos import read_photos
from trainer.examples import Examples
from trainer.fit import limited
from trainer.loop import Loop
from trainer.models.hyperprior import STRIDE, VariableRateHyperprior, decoded_at_random, zoo_sizes
from trainer.models.resnet import ResNet18
from trainer.networks import averaged_states
from trainer.processes import current
from trainer.stages import ClassifierStage, Figures, Stage
from trainer.study.config import StudyConfig, TuneConfig
from trainer.study.latents import LatentsStage, latents_head
from trainer.study.pretrain import PretrainStage
from trainer.study.tune import TuneStage

# What latents takes over from the generic codec.
KEPT = ("g_s", "h_a", "h_s", "entropy_bottleneck", "gaussian_conditional")


@dataclass(frozen=True)
class Run:
    """Where one stage's checkpoint and log go, and its seed."""

    out: Path
    seed: int
    checkpoint_steps: int


def pretrain(config: StudyConfig) -> Figures:
    """Train the generic codec on photographs."""
    face = config.face
    photos = read_photos(
        config.photos, config.pretrain.crops, face.size, face.channels, config.seed
    )
    others = config.photos_valid or config.photos
    valid = read_photos(
        others, config.pretrain.valid_crops, face.size, face.channels, config.seed + 1
    )
    torch.manual_seed(config.seed)
    stage = PretrainStage(config.pretrain, new_codec(config))
    return _fit(stage, _run(config), photos, valid)


def classifier(config: StudyConfig) -> Figures:
    """Train the original classifier on uncompressed faces."""
    torch.manual_seed(config.seed)
    stage = ClassifierStage(config.classifier, new_classifier(config), "classifier")
    return _fit(stage, _run(config), *read_faces(config))


def latents(config: StudyConfig) -> Figures:
    """Teach a new analysis to tell expressions apart; the rest starts at the generic codec."""
    generic = load_codec(config, config.out / "pretrain.pt").state_dict()
    torch.manual_seed(config.seed)
    codec = new_codec(config, tuned=True)
    kept = {name: state for name, state in generic.items() if name.startswith(KEPT)}
    codec.load_state_dict({**codec.state_dict(), **kept})
    stage = LatentsStage(config.latents, codec.train(), new_head(config))
    train, valid = read_faces(config)
    return _fit(stage, _run(config), train, limited(valid, config.latents.valid_faces))


def finetune(config: StudyConfig, seed: int) -> Figures:
    """Tune the generic codec against the frozen original classifier."""
    starts = _starts(config, config.finetune, seed)
    head = _start_head(config, config.finetune, seed)
    stage = TuneStage("finetune", config.finetune, *starts, train_classifier=False, head=head)
    return _tune(config, stage, seed)


def joint(config: StudyConfig, seed: int) -> Figures:
    """Tune codec and classifier together, from the original classifier."""
    starts = _starts(config, config.joint, seed)
    head = _start_head(config, config.joint, seed)
    stage = TuneStage("joint", config.joint, *starts, train_classifier=True, head=head)
    return _tune(config, stage, seed)


def adapt(config: StudyConfig, name: str) -> Figures:
    """Tune the original classifier alone, on what a codec makes of the faces.

    name: of an image codec (trainer.baselines), or "pretrained". Every face is coded at a rate
    drawn for it: one classifier serves all rates, as one variable-rate codec does.
    """
    train, valid = read_faces(config)
    train = limited(train, config.adapt_faces)
    train, valid = (_coded(config, name, faces) for faces in (train, valid))
    network = load_classifier(config, config.out / "classifier.pt")
    stage = ClassifierStage(config.adapt, network.train(), f"adapt-{name}")
    return _fit(stage, _run(config), train, valid)


def _coded(config: StudyConfig, name: str, faces: FaceSet) -> FaceSet:
    if name in IMAGE_CODECS:
        decoded = code_at_random(IMAGE_CODECS[name], faces.pixels[:], config.seed)
    else:
        codec = load_codec(config, config.out / "pretrain.pt")
        decoded = decoded_at_random(codec, faces.pixels[:], config.seed)
    return dataclasses.replace(faces, pixels=decoded)


def edge(config: StudyConfig) -> Figures:
    """Train a classifier that costs about as much as the encoder."""
    torch.manual_seed(config.seed)
    stage = ClassifierStage(config.edge, new_classifier(config, config.edge_width), "edge")
    return _fit(stage, _run(config), *read_faces(config))


def grid(config: StudyConfig) -> list[dict[str, float]]:
    """Tune the codec for a short while with every pair of loss weights, each from the same start.

    Accuracy and PSNR of a cell are read off its curve at the same bytes for all, by entropy, so
    that a pair is not praised for the bytes it spent. Writes grid.json.
    """
    train, valid = read_faces(config)
    train, valid = limited(train, config.grid.faces), limited(valid, config.finetune.valid_faces)
    cells = []
    for cross_entropy in config.grid.cross_entropy:
        for features in config.grid.features:
            short = dataclasses.replace(
                config.finetune, epochs=1, cross_entropy=cross_entropy, features=features
            )
            name = f"grid-{cross_entropy}-{features}"
            starts = _starts(config, short, config.seed)
            head = _start_head(config, short, config.seed)
            stage = TuneStage(name, short, *starts, train_classifier=False, head=head)
            figures = _fit(stage, _run(config), train, valid)
            weights = {
                "cross_entropy": cross_entropy,
                "features": features,
                "distortion": short.distortion,
            }
            cells.append({**weights, **at_bytes(figures, config.codec.rates, config.grid.bytes)})
    if current().leads:
        (config.out / "grid.json").write_text(json.dumps(cells, indent=2) + "\n")
    return cells


def at_bytes(figures: Figures, rates: int, face_bytes: float) -> Figures:
    """Accuracy and PSNR at so many bytes, between rates by the logarithm of the bytes."""
    spent = np.log([figures[f"bytes_{rate}"] for rate in range(rates)])
    order = np.argsort(spent)
    read = {
        name: float(
            np.interp(
                np.log(face_bytes),
                spent[order],
                np.array([figures[f"{name}_{rate}"] for rate in range(rates)])[order],
            )
        )
        for name in ("accuracy", "psnr_db")
    }
    return {"bytes": face_bytes, **read}


def read_faces(config: StudyConfig) -> tuple[FaceSet, FaceSet]:
    """Training and validation faces, no more than max_faces of each."""
    train, valid = read_train_and_valid(config.data, config.face)
    return limited(train, config.max_faces), limited(valid, config.max_faces)


def new_codec(config: StudyConfig, tuned: bool = False) -> VariableRateHyperprior:
    """The codec of the configured size, untrained; tuned: with a tuned codec's nonlinearity."""
    nonlinearity = config.codec.tuned_nonlinearity if tuned else "gdn"
    sizes, rates = (config.codec.width, config.codec.latent_channels), config.codec.rates
    if config.codec.zoo_quality is not None:
        sizes, rates = zoo_sizes(config.codec.zoo_quality), 1
    return VariableRateHyperprior(*sizes, config.face.channels, rates, nonlinearity)


def new_classifier(config: StudyConfig, width: int | None = None) -> ResNet18:
    """The classifier of the configured size, untrained."""
    face = config.face
    return ResNet18(
        face.channels,
        face.size,
        width or config.classifier_width,
        len(EXPRESSIONS),
        config.dropout,
    )


def new_head(config: StudyConfig) -> nn.Module:
    """The head that latents are taught by, untrained."""
    channels, size = new_codec(config).M, config.face.size // STRIDE
    sizes = (channels, size, config.latents.head_width, len(EXPRESSIONS))
    return latents_head(*sizes, config.latents.head_dropout)


def load_codec(config: StudyConfig, checkpoint: Path) -> VariableRateHyperprior:
    """The averaged codec of a pretrain, latents, finetune or joint checkpoint, in eval mode."""
    codec = new_codec(config, tuned=checkpoint.stem != "pretrain")
    codec.load_state_dict(_part(checkpoint, "codec."))
    codec.eval()
    return codec


def load_classifier(config: StudyConfig, checkpoint: Path, width: int | None = None) -> ResNet18:
    """The averaged classifier of a classifier, adapt, edge or joint checkpoint, in eval mode."""
    network = new_classifier(config, width)
    network.load_state_dict(_part(checkpoint, "classifier."))
    return network.eval()


def seed_folder(config: StudyConfig, seed: int) -> Path:
    """Where the stages that are trained once for each seed are."""
    return config.out / f"seed-{seed}"


def _starts(
    config: StudyConfig, stage: TuneConfig, seed: int
) -> tuple[VariableRateHyperprior, ResNet18]:
    codec = load_codec(config, _start_checkpoint(config, stage, seed)).train()
    return codec, load_classifier(config, config.out / "classifier.pt")


def _start_head(config: StudyConfig, stage: TuneConfig, seed: int) -> nn.Module | None:
    """The head that the latents were taught by so far; none where the stage has no use for it."""
    if not stage.latents:
        return None
    head = new_head(config)
    states = averaged_states(_start_checkpoint(config, stage, seed))
    if kept := {n.removeprefix("head."): s for n, s in states.items() if n.startswith("head.")}:
        head.load_state_dict(kept)
    return head


def _start_checkpoint(config: StudyConfig, stage: TuneConfig, seed: int) -> Path:
    folder = seed_folder(config, seed) if stage.start == "finetune" else config.out
    return folder / f"{stage.start}.pt"


def _part(checkpoint: Path, prefix: str) -> dict[str, torch.Tensor]:
    """The averaged weights of one network; all of them where the checkpoint holds one network."""
    states = averaged_states(checkpoint)
    found = {n.removeprefix(prefix): s for n, s in states.items() if n.startswith(prefix)}
    return found or states


def _run(config: StudyConfig, seed: int | None = None) -> Run:
    if seed is None:
        return Run(config.out, config.seed, config.checkpoint_steps)
    return Run(seed_folder(config, seed), seed, config.checkpoint_steps)


def _tune(config: StudyConfig, stage: TuneStage, seed: int) -> Figures:
    train, valid = read_faces(config)
    return _fit(stage, _run(config, seed), train, limited(valid, stage.config.valid_faces))


def _fit(stage: Stage, run: Run, train: Examples, valid: Examples) -> Figures:
    run.out.mkdir(parents=True, exist_ok=True)
    figures = Loop(stage, run, train, valid).fit()
    if current().leads:
        (run.out / f"{stage.name}.json").write_text(json.dumps(figures, indent=2) + "\n")
    return figures
