"""One run from data to trained networks: the pixel classifier, then codec and classifier."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import torch

from trainer.config import FitConfig
from trainer.data.faces import EXPRESSIONS, FaceSet
from trainer.data.layout import read_train_and_valid
from trainer.loop import Loop
from trainer.models.networks import PixelClassifier
from trainer.networks import averaged_states
from trainer.processes import current
from trainer.stages import ClassifierStage, Figures, JointModel, JointStage


@dataclasses.dataclass(frozen=True)
class Trained:
    """What a run leaves: averaged networks in eval mode."""

    config: FitConfig
    pixel: PixelClassifier
    joint: JointModel


def fit(config: FitConfig) -> dict[str, Figures]:
    """Train both stages, going on from the checkpoints in config.out.

    Returns each stage's figures on the validation split.
    """
    processes = current()
    if processes.leads:
        _settle(config)
    processes.wait()
    if config.threads:
        torch.set_num_threads(config.threads)
    train, valid = read_train_and_valid(config.data)
    train, valid = limited(train, config.max_faces), limited(valid, config.max_faces)
    print(f"{len(train)} faces to train on, left out: {dict(train.left_out)}")
    torch.manual_seed(config.seed)
    figures: dict[str, Figures] = {}
    if config.start is None:
        classifier = ClassifierStage(config.classifier, _new_classifier(config), "classifier")
        figures["classifier"] = Loop(classifier, config, train, valid).fit()
    torch.manual_seed(config.seed + 1)
    stage = JointStage(config.joint, config.model, load_pixel_classifier(config))
    if config.start is not None:
        stage.joint.load_state_dict(_joint_states(config.start))
    figures["joint"] = Loop(stage, config, train, valid).fit()
    if processes.leads:
        (config.out / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")
    return figures


def _settle(config: FitConfig) -> None:
    """Put what is known from the start into the run's folder."""
    config.out.mkdir(parents=True, exist_ok=True)
    (config.out / "config.json").write_text(json.dumps(_plain(config), indent=2) + "\n")
    if config.start is not None:
        shutil.copyfile(config.start / "classifier.pt", config.out / "classifier.pt")
        shutil.copyfile(config.start / "config.json", config.out / "start.json")


def load_trained(config: FitConfig) -> Trained:
    """The averaged networks of a finished run in config.out."""
    pixel = load_pixel_classifier(config)
    joint = JointModel(config.model)
    joint.load_state_dict(_joint_states(config.out))
    return Trained(config, pixel, joint.eval())


def load_pixel_classifier(config: FitConfig) -> PixelClassifier:
    """The averaged pixel classifier of config.out, in eval mode."""
    pixel = _new_classifier(config)
    pixel.load_state_dict(averaged_states(config.out / "classifier.pt"))
    return pixel.eval()


def _new_classifier(config: FitConfig) -> PixelClassifier:
    model = config.model
    return PixelClassifier(model.analysis_widths, len(EXPRESSIONS), model.dropout)


def _joint_states(run: Path) -> dict[str, torch.Tensor]:
    states = averaged_states(run / "joint.pt")
    return {n.removeprefix("joint."): s for n, s in states.items() if n.startswith("joint.")}


def limited(faces: FaceSet, most: int | None) -> FaceSet:
    """The first faces, no more than most."""
    if most is None or most >= len(faces):
        return faces
    return dataclasses.replace(faces, pixels=faces.pixels[:most], votes=faces.votes[:most])


def _plain(config: FitConfig) -> dict[str, Any]:
    """The config as JSON can hold it, without the folders: they are the machine's."""
    plain = dataclasses.asdict(config)
    return {name: value for name, value in plain.items() if name not in ("data", "out", "start")}
