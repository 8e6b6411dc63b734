"""What a stage of training is: what it optimises and how it is judged.

A stage owns its networks. It prepares a batch (all that is random about it), gives the loss of
it or of a part of it, takes note of a step's figures, and says how good its networks are on
held-out faces. How steps are taken is the loop's (trainer.loop).
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.augment import augment, erase, mixup
from trainer.config import StageConfig
from trainer.examples import Examples, device_of, in_parts
from trainer.models.resnet import ResNet18

Figures = dict[str, float]
Batch = tuple[Tensor, ...]

# Every part of a model learns at the stage's own rate.
EVERYTHING_ALIKE: Mapping[str, float] = MappingProxyType({})
# What is left of the augmentation in the calm steps at the end.
CALM_SCALE = 0.4
# What a teacher answers counts most: like features ask for texture, which costs decibels.
FEATURES_WEIGHT = 0.1


class Stage(Protocol):
    """What the loop needs of a stage."""

    name: str
    model: nn.Module

    @property
    def frozen(self) -> tuple[nn.Module, ...]:
        """Networks that the loss asks and that are not trained."""

    @property
    def learning_rate_shares(self) -> Mapping[str, float]:
        """Of the learning rate, what parts of the model get, by name; 1 for those not named."""

    @property
    def config(self) -> StageConfig:
        """How the stage is optimised."""

    def prepare(
        self, faces: Tensor, votes: Tensor, progress: float, generator: torch.Generator
    ) -> Batch:
        """All that is random about a batch, from the generator alone.

        faces: float32 0..1 (N, C, H, W); votes (N, K). Returns tensors whose first dimension is N,
        so that several processes can take a part of the faces each. All of it on the CPU, where
        the same generator gives the same numbers on every machine.
        """

    def loss(self, batch: Batch, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean loss of (a part of) a prepared batch, with figures for the log.

        The batch is where the networks are. Figures are means over the faces, so that those of
        equal parts average to those of the batch.
        """

    def stepped(self, figures: Figures, progress: float) -> Figures:
        """Take note of a step's figures, of all processes. Returns what to add to the log."""

    def evaluate(self, model: nn.Module, valid: Examples) -> Figures:
        """Figures of (averaged) networks on held-out faces."""


def soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy in nats against distributions (N, K), averaged over faces."""
    return cross_entropies(logits, target).mean()


def cross_entropies(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy in nats of each face (N,) against its distribution, both (N, K)."""
    return -(target * F.log_softmax(logits, dim=1)).sum(dim=1)


def seen(teacher: ResNet18, faces: Tensor, x_hat: Tensor) -> Tensor:
    """How differently a teacher sees faces and their reconstructions, features and answer."""
    wanted = teacher.features(faces)
    found = teacher.features(x_hat.contiguous(memory_format=torch.channels_last))
    distances = [
        F.mse_loss(f, w) / w.square().mean() for f, w in zip(found[1:], wanted[1:], strict=True)
    ]
    said = F.log_softmax(teacher.classify(found), dim=1)
    right = F.softmax(teacher.classify(wanted), dim=1)
    answered = F.kl_div(said, right, reduction="batchmean")
    return answered + FEATURES_WEIGHT * torch.stack(distances).sum()


def psnr_sum(x_hat: Tensor, x: Tensor) -> float:
    """Sum over the faces of each one's PSNR, dB, both (N, C, H, W) in 0..1; 90 for a copy."""
    error = (x_hat.clamp(0, 1) - x).square().mean(dim=(1, 2, 3)).clamp_min(1e-9)
    return float(-10 * torch.log10(error).sum())


def augmented(
    faces: Tensor, votes: Tensor, config: StageConfig, progress: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Augmented faces, channels last, and the votes that mixup made of theirs."""
    calm = progress >= 1 - config.calm_share
    ranges = config.augmentation.scaled(CALM_SCALE) if calm else config.augmentation
    faces = augment(faces, ranges, generator)
    if not calm and float(torch.rand(1, generator=generator)) < config.mixup_share:
        faces, votes = mixup(faces, votes, config.mixup_alpha, generator)
    faces = erase(faces, ranges.erase_share, generator)
    return faces.contiguous(memory_format=torch.channels_last), votes


class ClassifierStage:
    """A classifier on faces as they are given, with vote distributions as targets."""

    frozen: tuple[nn.Module, ...] = ()
    learning_rate_shares: Mapping[str, float] = EVERYTHING_ALIKE

    def __init__(self, config: StageConfig, classifier: nn.Module, name: str) -> None:
        self.config, self.name = config, name
        self.model = classifier

    def prepare(
        self, faces: Tensor, votes: Tensor, progress: float, generator: torch.Generator
    ) -> Batch:
        """Augmented faces and their votes."""
        return augmented(faces, votes, self.config, progress, generator)

    def loss(self, batch: Batch, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy with the votes."""
        faces, votes = batch
        loss = soft_cross_entropy(self.model(faces), votes)
        return loss, {"cross_entropy": loss.detach()}

    def stepped(self, figures: Figures, progress: float) -> Figures:
        """Nothing to note."""
        return {}

    def evaluate(self, model: nn.Module, valid: Examples) -> Figures:
        """Majority accuracy."""
        right = 0
        for x, m in in_parts(valid, device_of(model)):
            right += int((model(x).argmax(dim=1) == m).sum())
        return {"accuracy": right / len(valid)}
