"""Trains tiny networks on drawn faces: alone when called, together with others by torchrun.

torchrun --nproc_per_node 2 -m tests.unit.trainer.shared_training STAGE OUT [STOP_AFTER]
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from tests.unit.trainer.datasets import drawn, votes_for
from trainer import loop
from trainer.config import StageConfig
from trainer.data.faces import FaceSet
from trainer.models.hyperprior import VariableRateHyperprior
from trainer.models.resnet import ResNet18
from trainer.processes import leave
from trainer.stages import ClassifierStage, Figures, Stage
from trainer.study.config import LatentsConfig, PretrainConfig
from trainer.study.latents import LatentsStage, latents_head
from trainer.study.pretrain import PretrainStage

STEPS = 12


@dataclass(frozen=True)
class Run:
    out: Path
    seed: int = 3
    checkpoint_steps: int = 2


def faces(count: int, first: int) -> FaceSet:
    votes = votes_for(count, first)[:, :8].astype("float32")
    return FaceSet(drawn(count, first)[:, None], votes / votes.sum(axis=1, keepdims=True))


def stage(name: str) -> Stage:
    torch.manual_seed(5)
    if name == "classifier":
        network = ResNet18(1, 48, 4, 8, dropout=0.0)
        return ClassifierStage(
            StageConfig(epochs=3, batch_faces=16, learning_rate=0.002), network, name
        )
    if name == "latents":
        codec = VariableRateHyperprior(8, 12, 1, 2, "relu")
        taught = LatentsConfig(
            lmbdas=(0.01, 0.001), start_gains=(0.6, 0.4), epochs=3, batch_faces=16, balance=0.0
        )
        return LatentsStage(taught, codec, latents_head(12, 3, 16, 8, 0.0))
    config = PretrainConfig(lmbdas=(0.002, 0.01), epochs=3, batch_faces=16)
    return PretrainStage(config, VariableRateHyperprior(8, 12, 1, rates=2))


def train(name: str, out: Path, stop_after: int = STEPS) -> Figures:
    """Every step's figures go to the log. Dies like a killed process after so many steps."""
    loop.LOG_STEPS = 1
    # In float32, whatever this processor has: what is left between runs is rounding.
    loop.has_bf16 = lambda: False
    training = loop.Loop(stage(name), Run(out), faces(64, 0), faces(24, 64))
    one_step = training._one_step

    def step_or_die() -> Figures:
        if training.step == stop_after:
            os._exit(1)
        return one_step()

    training._one_step = step_or_die  # type: ignore[method-assign]
    return training.fit()


if __name__ == "__main__":
    torch.set_num_threads(1)
    out = Path(sys.argv[2])
    figures = train(sys.argv[1], out, *map(int, sys.argv[3:]))
    (out / f"figures-{os.environ['RANK']}.txt").write_text(repr(figures))
    leave()
