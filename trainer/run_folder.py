"""A run's folder: what is put there at the start, and the networks that stages leave in it.

config.json, start.json     what the run was told, and the run that it goes on from
bundle.json                 or the bundle
STAGE.pt, STAGE.json        a stage's checkpoint (trainer.loop), and its figures
STAGE.npz                   instead of a checkpoint where a stage was trained elsewhere
"""

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mien.npz import write_npz
from mien.whole_file import replace_file
from trainer.config import FitConfig
from trainer.data.faces import EXPRESSIONS, FACE_SIZE
from trainer.models.base import BaseModel
from trainer.models.enhancement import EnhancementModel
from trainer.models.resnet import ResNet18
from trainer.networks import RELEASED, averaged_states
from trainer.released import restore_base

TEACHER = "classifier.npz"
# In base.json, what was added to the log_gains of the checkpoint beside it.
ADDED = "added_log_gains"
# Which bundle a run goes on from.
BUNDLE_NOTE = "bundle.json"
# Of each stage's checkpoint, what the names of its networks' states begin with.
PREFIXES = {"base": "base.", "enhancement": "net.", "synthesis": "net."}


@dataclasses.dataclass(frozen=True)
class Trained:
    """What a run leaves: averaged networks in eval mode."""

    config: FitConfig
    pixel: ResNet18
    base: BaseModel
    enhancement: EnhancementModel


def note(config: FitConfig, stage: str, known: Mapping[str, Any]) -> None:
    """Keep what is known of a finished stage beside its checkpoint, so that it can be released."""
    (config.out / f"{stage}.json").write_text(json.dumps(known, indent=2) + "\n")


def settle(config: FitConfig) -> None:
    """Put what is known from the start into the run's folder.

    A base without epochs is there already: in the run, or the bundle, that this one goes on from.
    Raises BundleError, and OtherNetworksError where a bundle's networks have other sizes.
    """
    config.out.mkdir(parents=True, exist_ok=True)
    (config.out / "config.json").write_text(json.dumps(_plain(config), indent=2) + "\n")
    if config.teacher is not None:
        shutil.copyfile(config.teacher, config.out / TEACHER)
    if config.start is not None:
        shutil.copyfile(config.start / "config.json", config.out / "start.json")
        _copy_kept(config, config.start)
    if config.bundle is not None:
        _restore_kept(config, config.bundle)


def _copy_kept(config: FitConfig, start: Path) -> None:
    kept = ["classifier"]
    if not config.base.epochs:
        kept.append("base")
    for file in (f"{stage}{suffix}" for stage in kept for suffix in (".pt", RELEASED, ".json")):
        if (start / file).is_file():
            shutil.copyfile(start / file, config.out / file)


def _restore_kept(config: FitConfig, bundle: Path) -> None:
    base = new_base(config)
    note = {"id": restore_base(base, bundle)}
    (config.out / BUNDLE_NOTE).write_text(json.dumps(note) + "\n")
    if not config.base.epochs:
        write(base, "base", config.out)


def write(model: nn.Module, stage: str, out: Path) -> None:
    """Leave a stage's networks in a run's folder, as a checkpoint of it would."""
    prefix, owned = PREFIXES[stage], model.state_dict()
    arrays = {f"{prefix}{name}": state.numpy() for name, state in owned.items()}
    replace_file(out / f"{stage}{RELEASED}", write_npz(arrays))


def start(model: nn.Module, stage: str, run: Path) -> None:
    """Load a stage's networks of a run that another one goes on from."""
    model.load_state_dict(states(run, stage))


def last_drawn(run: Path) -> str:
    """The last stage of a run that has trained an enhancement."""
    files = (run / f"synthesis{suffix}" for suffix in (".pt", RELEASED))
    return "synthesis" if any(file.is_file() for file in files) else "enhancement"


def load_trained(config: FitConfig) -> Trained:
    """The averaged networks of a finished run in config.out.

    Raises FileNotFoundError where a stage that config asks for was not begun.
    """
    enhancement = EnhancementModel(config.model)
    start(enhancement, "synthesis" if config.synthesis.epochs else "enhancement", config.out)
    pixel = load_pixel_classifier(config)
    return Trained(config, pixel, load_base(config), enhancement.eval())


def load_pixel_classifier(config: FitConfig) -> ResNet18:
    """The averaged pixel classifier of config.out, in eval mode."""
    pixel = new_teacher(config)
    pixel.load_state_dict(averaged_states(config.out / "classifier.pt"))
    return pixel.eval().to(memory_format=torch.channels_last)


def load_base(config: FitConfig) -> BaseModel:
    """The averaged base of config.out, levels placed, in eval mode."""
    return base_of(config, config.out)


def base_of(config: FitConfig, run: Path) -> BaseModel:
    """The same of another run with networks of the same sizes."""
    base = new_base(config)
    base.load_state_dict(states(run, "base"))
    return base.eval()


def new_teacher(config: FitConfig) -> ResNet18:
    """A pixel classifier as config has it, not trained."""
    model = config.model
    return ResNet18(1, FACE_SIZE, model.teacher_width, len(EXPRESSIONS), model.dropout)


def new_base(config: FitConfig) -> BaseModel:
    """A base layer as config has it, not trained."""
    features = 8 * config.model.teacher_width
    return BaseModel(config.model, len(config.base.level_bytes), features)


def states(run: Path, stage: str) -> dict[str, torch.Tensor]:
    """Of a stage's checkpoint the states of its networks, levels placed, without its loss'."""
    prefix = PREFIXES[stage]
    every = averaged_states(run / f"{stage}.pt")
    owned = {n.removeprefix(prefix): s for n, s in every.items() if n.startswith(prefix)}
    noted = run / f"{stage}.json"
    added = json.loads(noted.read_text()).get(ADDED) if noted.is_file() else None
    if added is not None:
        owned["log_gains"] = owned["log_gains"] + torch.tensor(added)
    return owned


def _plain(config: FitConfig) -> dict[str, Any]:
    """The config as JSON can hold it, without the folders: they are the machine's."""
    plain = dataclasses.asdict(config)
    machine = ("data", "out", "start", "bundle", "teacher")
    return {name: value for name, value in plain.items() if name not in machine}
