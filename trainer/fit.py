"""One run from data to trained networks: pixel classifier, base layer, enhancement, synthesis."""

import json

import torch

from trainer.base_stage import BaseStage
from trainer.config import FitConfig
from trainer.data.faces import FaceSet
from trainer.data.layout import read_train_and_valid
from trainer.enhancement_stage import EnhancementStage
from trainer.examples import as_float
from trainer.loop import Loop
from trainer.models.base import BaseModel
from trainer.models.enhancement import EnhancementModel
from trainer.models.resnet import ResNet18
from trainer.placing import Placing, latents
from trainer.processes import current
from trainer.rebasing import rebase_to
from trainer.released import OtherNetworksError, begin_base, begin_enhancement
from trainer.run_folder import (
    ADDED,
    base_of,
    last_drawn,
    load_base,
    load_pixel_classifier,
    new_base,
    new_teacher,
    note,
    settle,
    start,
    write,
)
from trainer.stages import ClassifierStage, Figures
from trainer.synthesis_stage import SynthesisStage, placed

# Of so many faces the enhancement begins with the components: a gigabyte as they are found.
BEGIN_FACES = 30_000
# By so many faces the levels are placed.
PLACED_FACES = 8_000
# What is not in a bundle is found again by so many.
RESTORED_FACES = 4_000


def fit(config: FitConfig) -> dict[str, Figures]:
    """Train all stages, going on from the checkpoints in config.out.

    Returns each stage's figures on the validation split. Raises ValueError for options that
    contradict each other.
    """
    if config.start is not None and config.bundle is not None:
        raise ValueError("a run starts from another run or from a bundle, not from both")
    if config.start is None and config.bundle is None and not config.enhancement.epochs:
        raise ValueError("an enhancement without epochs has to be in a run or a bundle: name one")
    processes = current()
    if processes.leads:
        settle(config)
    processes.wait()
    if config.threads:
        torch.set_num_threads(config.threads)
    train, valid = read_train_and_valid(config.data)
    train, valid = limited(train, config.max_faces), limited(valid, config.max_faces)
    print(f"{len(train)} faces to train on, left out: {dict(train.left_out)}")
    torch.manual_seed(config.seed)
    figures: dict[str, Figures] = {}
    if config.teacher is None and config.start is None:
        classifier = ClassifierStage(config.classifier, new_teacher(config), "classifier")
        figures["classifier"] = _finished(Loop(classifier, config, train, valid), config)
    teacher = load_pixel_classifier(config)
    if config.base.epochs:
        figures["base"] = _base_trained(config, train, valid, teacher)
    figures |= _enhancement(config, train, valid, teacher)
    if config.synthesis.epochs:
        figures["synthesis"] = _synthesis(config, train, valid, teacher)
    if processes.leads:
        (config.out / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")
    return figures


def _base_trained(config: FitConfig, train: FaceSet, valid: FaceSet, teacher: ResNet18) -> Figures:
    torch.manual_seed(config.seed + 1)
    base = BaseStage(config.base, new_base(config), teacher)
    if config.start is not None:
        start(base.base, "base", config.start)
    if config.bundle is not None and not (config.out / "base.pt").is_file():
        begin_base(base.base, config.bundle, as_float(train.pixels[:RESTORED_FACES]))
    figures = _finished(Loop(base, config, train, valid), config)
    if current().leads and config.base.placed:
        note(config, "base", {**figures, ADDED: _placed(config, train)})
    current().wait()
    return figures


def _enhancement(
    config: FitConfig, train: FaceSet, valid: FaceSet, teacher: ResNet18
) -> dict[str, Figures]:
    torch.manual_seed(config.seed + 2)
    model, base = EnhancementModel(config.model), load_base(config)
    trained = (config.out / "enhancement.pt").is_file()
    if not trained:
        _begin_enhancement(model, base, config, train)
    if not config.enhancement.epochs:
        if current().leads and not trained:
            write(model, "enhancement", config.out)
        current().wait()  # the next stage reads it
        return {}
    stage = EnhancementStage(config.enhancement, model, base, teacher)
    return {"enhancement": _finished(Loop(stage, config, train, valid), config)}


def _synthesis(config: FitConfig, train: FaceSet, valid: FaceSet, teacher: ResNet18) -> Figures:
    torch.manual_seed(config.seed + 3)
    model, base = EnhancementModel(config.model), load_base(config)
    start(model, "enhancement", config.out)
    layers = placed(config.synthesis, config.enhancement.layer_channels, model, base, train)
    stage = SynthesisStage(config.synthesis, model, base, teacher, layers)
    return _finished(Loop(stage, config, train, valid), config)


def _begin_enhancement(
    model: EnhancementModel, base: BaseModel, config: FitConfig, train: FaceSet
) -> None:
    """As in the run or the bundle that this run goes on from, or from principal components.

    Raises OtherNetworksError where it is to stay as in a bundle whose enhancement has other sizes.
    """
    faces = as_float(train.pixels[:RESTORED_FACES])
    if config.start is not None:
        start(model, last_drawn(config.start), config.start)
        rebase_to(model, base_of(config, config.start), base, faces)
        return
    if config.bundle is not None:
        try:
            begin_enhancement(model, base, config.bundle, faces)
        except OtherNetworksError:
            if not config.enhancement.epochs:
                raise
            print("the bundle's enhancement has other sizes, so this one begins anew")
        else:
            return
    model.begin(as_float(train.pixels[:BEGIN_FACES]))


def _placed(config: FitConfig, train: FaceSet) -> list[list[float]]:
    base, faces = load_base(config), limited(train, PLACED_FACES)
    votes = torch.from_numpy(faces.votes)
    return Placing(base, latents(base, faces), votes).added(config.base.level_bytes)


def _finished(loop: Loop, config: FitConfig) -> Figures:
    """A stage's figures, kept beside its checkpoint, so that it can be released."""
    figures = loop.fit()
    if current().leads:
        note(config, loop.stage.name, figures)
    return figures


def limited(faces: FaceSet, most: int | None) -> FaceSet:
    """The first faces, no more than most."""
    if most is None or most >= len(faces):
        return faces
    return faces.first(most)
