"""A study from nothing to its report: every stage that is not done yet, measuring, results."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from trainer.baselines.image_codecs import IMAGE_CODECS
from trainer.compare.make import make_results
from trainer.compare.results import SHEET
from trainer.processes import current
from trainer.stages import Figures
from trainer.study import runs
from trainer.study.config import StudyConfig
from trainer.study.measure import measure
from trainer.study.reconstructions import draw_reconstructions

ADAPTED = ("pretrained", *IMAGE_CODECS)
ONCE: dict[str, Callable[[StudyConfig], object]] = {
    "pretrain": runs.pretrain,
    "classifier": runs.classifier,
    "latents": runs.latents,
    "edge": runs.edge,
    "grid": runs.grid,
}


def train(config: StudyConfig) -> None:
    """Run every stage in an order in which each finds its start.

    A stage that is done is not run again; one that was stopped goes on.
    """
    taught = "latents" in (config.finetune.start, config.joint.start)
    for name in ("pretrain", "classifier", *(("latents",) if taught else ())):
        _unless_done(config, name)
    for seed in config.seeds:
        for name in ("finetune", "joint"):
            if not (runs.seed_folder(config, seed) / f"{name}.json").is_file():
                tune(config, name, seed)
    for name in ADAPTED:
        if not (config.out / f"adapt-{name}.json").is_file():
            adapt(config, name)
    for name in ("edge", "grid"):
        _unless_done(config, name)


def once(config: StudyConfig, name: str) -> object:
    """One of the stages that are taken once for all seeds."""
    with timed(config, name):
        return ONCE[name](config)


def tune(config: StudyConfig, name: str, seed: int) -> Figures:
    """finetune or joint, with one seed."""
    stage = {"finetune": runs.finetune, "joint": runs.joint}[name]
    with timed(config, name, seed):
        return stage(config, seed)


def adapt(config: StudyConfig, name: str) -> Figures:
    """The classifier tuned on what one codec makes of the faces."""
    with timed(config, f"adapt-{name}"):
        return runs.adapt(config, name)


def compare(config: StudyConfig, results: Path | None, pictures: Path | None) -> None:
    """Measure what has been trained; where results is given, write the report there."""
    if not current().leads:
        return
    measure(config)
    if results is None:
        return
    results.mkdir(parents=True, exist_ok=True)
    draw_reconstructions(config, results / SHEET, pictures)
    for path in (results / SHEET, *make_results(config.out, results)):
        print(path)


@contextmanager
def timed(config: StudyConfig, stage: str, seed: int | None = None) -> Iterator[None]:
    """Note in runs.json how many seconds a stage took."""
    begun = time.monotonic()
    yield
    if not current().leads:
        return
    path = config.out / "runs.json"
    noted = json.loads(path.read_text()) if path.is_file() else []
    which = {"stage": stage, "seed": config.seed if seed is None else seed}
    noted.append({**which, "wall_s": round(time.monotonic() - begun, 1)})
    path.write_text(json.dumps(noted, indent=2) + "\n")


def _unless_done(config: StudyConfig, name: str) -> None:
    if (config.out / f"{name}.json").is_file():
        print(f"{name}: done before")
        return
    once(config, name)
