"""One run from data to trained networks: the pixel classifier, the base layer, the enhancement."""

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mien.npz import write_npz
from trainer.base_stage import BaseStage
from trainer.config import FitConfig
from trainer.data.faces import EXPRESSIONS, FACE_SIZE, FaceSet
from trainer.data.layout import read_train_and_valid
from trainer.enhancement_stage import EnhancementStage
from trainer.examples import as_float
from trainer.loop import Loop
from trainer.models.base import BaseModel
from trainer.models.enhancement import EnhancementModel
from trainer.models.resnet import ResNet18
from trainer.networks import RELEASED, averaged_states
from trainer.placing import Placing, latents
from trainer.processes import current
from trainer.released import begin_base, begin_enhancement, restore_base
from trainer.stages import ClassifierStage, Figures

TEACHER = "classifier.npz"
# Of so many faces the enhancement begins with the components: a gigabyte as they are found.
BEGIN_FACES = 30_000
# By so many faces the levels are placed.
PLACED_FACES = 8_000
# What is not in a bundle is found again by so many.
RESTORED_FACES = 2_000
# In base.json, what was added to the log_gains of the checkpoint beside it.
ADDED = "added_log_gains"
# Which bundle a run goes on from.
BUNDLE_NOTE = "bundle.json"


@dataclasses.dataclass(frozen=True)
class Trained:
    """What a run leaves: averaged networks in eval mode."""

    config: FitConfig
    pixel: ResNet18
    base: BaseModel
    enhancement: EnhancementModel


def fit(config: FitConfig) -> dict[str, Figures]:
    """Train all stages, going on from the checkpoints in config.out.

    Returns each stage's figures on the validation split. Raises ValueError for options that
    contradict each other.
    """
    if config.start is not None and config.bundle is not None:
        raise ValueError("a run starts from another run or from a bundle, not from both")
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
    if config.teacher is None and config.start is None:
        classifier = ClassifierStage(config.classifier, _new_teacher(config), "classifier")
        figures["classifier"] = _finished(Loop(classifier, config, train, valid), config)
    teacher = load_pixel_classifier(config)
    if config.base.epochs:
        figures["base"] = _base_trained(config, train, valid, teacher)
    torch.manual_seed(config.seed + 2)
    model = EnhancementModel(config.model)
    base = _load_base(config)
    if not _start(model, "enhancement", config) and not (config.out / "enhancement.pt").is_file():
        _begin_enhancement(model, base, config, train)
    stage = EnhancementStage(config.enhancement, model, base, teacher)
    figures["enhancement"] = _finished(Loop(stage, config, train, valid), config)
    if processes.leads:
        (config.out / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")
    return figures


def _base_trained(config: FitConfig, train: FaceSet, valid: FaceSet, teacher: ResNet18) -> Figures:
    torch.manual_seed(config.seed + 1)
    base = BaseStage(config.base, _new_base(config), teacher)
    _start(base.base, "base", config)
    if config.bundle is not None:
        begin_base(base.base, config.bundle, as_float(train.pixels[:RESTORED_FACES]))
    figures = _finished(Loop(base, config, train, valid), config)
    if current().leads and config.base.placed:
        _note(config, "base", {**figures, ADDED: _placed(config, train)})
    current().wait()
    return figures


def _begin_enhancement(
    model: EnhancementModel, base: BaseModel, config: FitConfig, train: FaceSet
) -> None:
    """As in the bundle that the run goes on from, or from principal components."""
    if config.bundle is not None:
        try:
            begin_enhancement(model, base, config.bundle, as_float(train.pixels[:RESTORED_FACES]))
            return
        except ValueError as error:
            print(f"the enhancement begins anew: {error}")
    model.begin(as_float(train.pixels[:BEGIN_FACES]))


def _placed(config: FitConfig, train: FaceSet) -> list[list[float]]:
    base, faces = _load_base(config), limited(train, PLACED_FACES)
    votes = torch.from_numpy(faces.votes)
    return Placing(base, latents(base, faces), votes).added(config.base.level_bytes)


def _finished(loop: Loop, config: FitConfig) -> Figures:
    """A stage's figures, kept beside its checkpoint, so that it can be released."""
    figures = loop.fit()
    if current().leads:
        _note(config, loop.stage.name, figures)
    return figures


def _note(config: FitConfig, stage: str, known: Mapping[str, Any]) -> None:
    (config.out / f"{stage}.json").write_text(json.dumps(known, indent=2) + "\n")


def _settle(config: FitConfig) -> None:
    """Put what is known from the start into the run's folder."""
    config.out.mkdir(parents=True, exist_ok=True)
    (config.out / "config.json").write_text(json.dumps(_plain(config), indent=2) + "\n")
    if config.teacher is not None:
        shutil.copyfile(config.teacher, config.out / TEACHER)
    if config.start is not None:
        kept = ("classifier.pt", TEACHER)
        base_files = ("base.pt", f"base{RELEASED}", "base.json")
        for file in kept if config.base.epochs else (*kept, *base_files):
            if (config.start / file).is_file():
                shutil.copyfile(config.start / file, config.out / file)
        shutil.copyfile(config.start / "config.json", config.out / "start.json")
    if config.bundle is not None:
        base = _new_base(config)
        bundle_id = restore_base(base, config.bundle)
        (config.out / BUNDLE_NOTE).write_text(json.dumps({"id": bundle_id}) + "\n")
    if config.bundle is not None and not config.base.epochs:
        arrays = {f"base.{name}": state.numpy() for name, state in base.state_dict().items()}
        (config.out / f"base{RELEASED}").write_bytes(write_npz(arrays))


def _start(model: nn.Module, stage: str, config: FitConfig) -> bool:
    """Load a stage's networks from config.start. Returns whether there is one to start from."""
    if config.start is not None:
        model.load_state_dict(_states(config.start, stage))
    return config.start is not None


def load_trained(config: FitConfig) -> Trained:
    """The averaged networks of a finished run in config.out."""
    enhancement = EnhancementModel(config.model)
    enhancement.load_state_dict(_states(config.out, "enhancement"))
    pixel = load_pixel_classifier(config)
    return Trained(config, pixel, _load_base(config), enhancement.eval())


def load_pixel_classifier(config: FitConfig) -> ResNet18:
    """The averaged pixel classifier of config.out, in eval mode."""
    pixel = _new_teacher(config)
    pixel.load_state_dict(averaged_states(config.out / "classifier.pt"))
    return pixel.eval().to(memory_format=torch.channels_last)


def _load_base(config: FitConfig) -> BaseModel:
    base = _new_base(config)
    base.load_state_dict(_states(config.out, "base"))
    return base.eval()


def _new_teacher(config: FitConfig) -> ResNet18:
    model = config.model
    return ResNet18(1, FACE_SIZE, model.teacher_width, len(EXPRESSIONS), model.dropout)


def _new_base(config: FitConfig) -> BaseModel:
    features = 8 * config.model.teacher_width
    return BaseModel(config.model, len(config.base.level_bytes), features)


def _states(run: Path, stage: str) -> dict[str, torch.Tensor]:
    """Of a stage's checkpoint the states of its networks, levels placed, without its loss'."""
    prefix = {"base": "base.", "enhancement": "net."}[stage]
    states = averaged_states(run / f"{stage}.pt")
    states = {n.removeprefix(prefix): s for n, s in states.items() if n.startswith(prefix)}
    noted = run / f"{stage}.json"
    added = json.loads(noted.read_text()).get(ADDED) if noted.is_file() else None
    if added is not None:
        states["log_gains"] = states["log_gains"] + torch.tensor(added)
    return states


def limited(faces: FaceSet, most: int | None) -> FaceSet:
    """The first faces, no more than most."""
    if most is None or most >= len(faces):
        return faces
    return faces.first(most)


def _plain(config: FitConfig) -> dict[str, Any]:
    """The config as JSON can hold it, without the folders: they are the machine's."""
    plain = dataclasses.asdict(config)
    machine = ("data", "out", "start", "bundle", "teacher")
    return {name: value for name, value in plain.items() if name not in machine}
