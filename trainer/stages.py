"""The two stages of a run: what they optimise and how they are judged.

A stage owns its networks and answers two questions: the loss of a batch, and the figures on
held-out faces. How steps are taken is the loop's (trainer.loop).
"""

from collections.abc import Iterator
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.augment import augment, erase, mixup
from trainer.config import JointConfig, ModelConfig, StageConfig
from trainer.data.faces import EXPRESSIONS
from trainer.models.networks import Analysis, LatentClassifier, PixelClassifier, Synthesis
from trainer.models.prior import PositionalPrior
from trainer.quantise import straight_through, with_noise
from trainer.targets import Multipliers

Figures = dict[str, float]

EVALUATION_FACES = 256
# What is left of the augmentation in the calm steps at the end.
CALM_SCALE = 0.4


class Stage(Protocol):
    """What the loop needs of a stage."""

    name: str
    model: nn.Module

    @property
    def config(self) -> StageConfig:
        """How the stage is optimised."""

    def loss(
        self, faces: Tensor, votes: Tensor, progress: float, generator: torch.Generator
    ) -> tuple[Tensor, Figures]:
        """Loss of a batch, with figures for the log. faces: float32 0..1 (N, 1, 48, 48)."""

    def evaluate(self, model: nn.Module, faces: Tensor, majority: Tensor) -> Figures:
        """Figures of (averaged) networks on held-out faces."""


def soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy in nats against distributions (N, K), averaged over faces."""
    return -(target * F.log_softmax(logits, dim=1)).sum(dim=1).mean()


def _batch(
    faces: Tensor, votes: Tensor, config: StageConfig, progress: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    calm = progress >= 1 - config.calm_share
    ranges = config.augmentation.scaled(CALM_SCALE) if calm else config.augmentation
    faces = augment(faces, ranges, generator)
    if not calm and float(torch.rand(1, generator=generator)) < config.mixup_share:
        faces, votes = mixup(faces, votes, config.mixup_alpha, generator)
    faces = erase(faces, ranges.erase_share, generator)
    return faces.contiguous(memory_format=torch.channels_last), votes


def _parts(faces: Tensor, majority: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, len(faces), EVALUATION_FACES):
        part = slice(start, start + EVALUATION_FACES)
        yield faces[part], majority[part]


class ClassifierStage:
    """The pixel classifier on uncompressed faces, with vote distributions as targets."""

    name = "classifier"

    def __init__(self, config: StageConfig, model: ModelConfig) -> None:
        self.config = config
        self.classifier = PixelClassifier(model.analysis_widths, len(EXPRESSIONS), model.dropout)
        self.model: nn.Module = self.classifier

    def loss(
        self, faces: Tensor, votes: Tensor, progress: float, generator: torch.Generator
    ) -> tuple[Tensor, Figures]:
        """Cross-entropy with the votes."""
        faces, votes = _batch(faces, votes, self.config, progress, generator)
        loss = soft_cross_entropy(self.model(faces), votes)
        return loss, {"cross_entropy": loss.item()}

    def evaluate(self, model: nn.Module, faces: Tensor, majority: Tensor) -> Figures:
        """Majority accuracy."""
        right = 0
        for x, m in _parts(faces, majority):
            right += int((model(x).argmax(dim=1) == m).sum())
        return {"accuracy": right / len(faces)}


class JointModel(nn.Module):
    """g_a, prior, g_s and the latent classifier."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        channels = config.latent_channels
        self.analysis = Analysis(config.analysis_widths, channels)
        self.prior = PositionalPrior((channels, 3, 3), config.prior_components)
        self.synthesis = Synthesis(channels, config.synthesis_widths)
        self.classifier = LatentClassifier(
            channels, config.latent_classifier_width, len(EXPRESSIONS), config.dropout
        )


class JointStage:
    """Codec and latent classifier together, taught by the pixel classifier."""

    name = "joint"

    def __init__(self, config: JointConfig, model: ModelConfig, teacher: PixelClassifier) -> None:
        self.config = config
        self.teacher = teacher.eval().requires_grad_(False)
        joint = JointModel(model)
        joint.analysis.trunk.load_state_dict(teacher.trunk.state_dict())
        self.joint = joint
        self.multipliers = Multipliers(config)
        # One module, so that a checkpoint holds the multipliers too.
        self.model: nn.Module = nn.ModuleDict({"joint": joint, "multipliers": self.multipliers})

    def loss(
        self, faces: Tensor, votes: Tensor, progress: float, generator: torch.Generator
    ) -> tuple[Tensor, Figures]:
        """lmbda · bits + beta · 100 · MSE + gamma · cross-entropy."""
        faces, votes = _batch(faces, votes, self.config, progress, generator)
        target = self._taught(faces, votes)
        quantise = with_noise if progress < self.config.noise_share else straight_through
        y_hat = quantise(self.joint.analysis(faces).float())
        bits = self.joint.prior.bits(y_hat).sum(dim=(1, 2, 3)).mean()
        mse = F.mse_loss(self.joint.synthesis(y_hat), faces)
        cross_entropy = soft_cross_entropy(self.joint.classifier(y_hat), target)
        loss = (
            float(self.multipliers.lmbda) * bits
            + float(self.multipliers.beta) * 100 * mse
            + self.config.gamma * cross_entropy
        )
        self.multipliers.update(bits.item() / 8, mse.item(), progress)
        return loss, {
            "bytes": bits.item() / 8,
            "psnr_db": -10 * torch.log10(mse).item(),
            "cross_entropy": cross_entropy.item(),
            "lmbda": float(self.multipliers.lmbda),
            "beta": float(self.multipliers.beta),
        }

    @torch.no_grad()
    def _taught(self, faces: Tensor, votes: Tensor) -> Tensor:
        share = self.config.teacher_share
        if not share:
            return votes
        # A face and its mirror image show the same expression; their mean teaches better.
        logits = (self.teacher(faces) + self.teacher(faces.flip(3))) / 2
        return share * torch.softmax(logits, dim=1) + (1 - share) * votes

    def evaluate(self, model: nn.Module, faces: Tensor, majority: Tensor) -> Figures:
        """Accuracy, ideal bytes and PSNR with rounded latents."""
        joint = model["joint"]  # type: ignore[index]  # a ModuleDict, as built above
        right, bits, psnr = 0, 0.0, 0.0
        for x, m in _parts(faces, majority):
            y_hat = torch.round(joint.analysis(x))
            right += int((joint.classifier(y_hat).argmax(dim=1) == m).sum())
            bits += float(joint.prior.bits(y_hat).sum())
            error = (joint.synthesis(y_hat).clamp(0, 1) - x).square().mean(dim=(1, 2, 3))
            psnr += float(-10 * torch.log10(error).sum())
        n = len(faces)
        return {"accuracy": right / n, "bytes": bits / 8 / n, "psnr_db": psnr / n}
