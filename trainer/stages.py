"""The two stages of a run: what they optimise and how they are judged.

A stage owns its networks. It prepares a batch (all that is random about it), gives the loss of
it or of a part of it, takes note of a step's figures, and says how good its networks are on
held-out faces. How steps are taken is the loop's (trainer.loop).
"""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.augment import augment, erase, mixup
from trainer.config import JointConfig, ModelConfig, StageConfig
from trainer.data.faces import EXPRESSIONS
from trainer.examples import Examples, device_of, in_parts
from trainer.models.networks import Analysis, LatentClassifier, PixelClassifier, Synthesis
from trainer.models.prior import PositionalPrior
from trainer.quantise import straight_through
from trainer.targets import Multiplier

Figures = dict[str, float]
Batch = tuple[Tensor, ...]

# Every part of a model learns at the stage's own rate.
EVERYTHING_ALIKE: Mapping[str, float] = MappingProxyType({})
# How fast the joint stage's weights follow their targets, and when they start to.
RATE_GAIN = 0.003
PSNR_GAIN_PER_DB = 0.003
SETTLING_SHARE = 0.15
# What is left of the augmentation in the calm steps at the end.
CALM_SCALE = 0.4


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
        self.frozen: tuple[nn.Module, ...] = (self.teacher,)
        self.learning_rate_shares: Mapping[str, float] = EVERYTHING_ALIKE
        joint = JointModel(model)
        joint.analysis.trunk.load_state_dict(teacher.trunk.state_dict())
        self.joint = joint
        self.lmbda = Multiplier([config.lmbda], RATE_GAIN, SETTLING_SHARE)
        self.beta = Multiplier([config.beta], PSNR_GAIN_PER_DB, SETTLING_SHARE)
        # One module, so that a checkpoint holds the multipliers too.
        self.model: nn.Module = nn.ModuleDict(
            {"joint": joint, "lmbda": self.lmbda, "beta": self.beta}
        )

    def prepare(
        self, faces: Tensor, votes: Tensor, progress: float, generator: torch.Generator
    ) -> Batch:
        """Augmented faces, their votes, and the noise that stands in for rounding."""
        faces, votes = augmented(faces, votes, self.config, progress, generator)
        latents = (len(faces), *self.joint.prior.shape)
        return faces, votes, torch.rand(latents, generator=generator) - 0.5

    def loss(self, batch: Batch, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """lmbda · bits + beta · 100 · MSE + gamma · cross-entropy."""
        faces, votes, noise = batch
        target = self._taught(faces, votes)
        y = self.joint.analysis(faces).float()
        y_hat = y + noise if progress < self.config.noise_share else straight_through(y)
        bits = self.joint.prior.bits(y_hat).sum(dim=(1, 2, 3)).mean()
        mse = F.mse_loss(self.joint.synthesis(y_hat), faces)
        cross_entropy = soft_cross_entropy(self.joint.classifier(y_hat), target)
        loss = (
            float(self.lmbda.weight) * bits
            + float(self.beta.weight) * 100 * mse
            + self.config.gamma * cross_entropy
        )
        return loss, {
            "bytes": bits.detach() / 8,
            "mse": mse.detach(),
            "cross_entropy": cross_entropy.detach(),
        }

    def stepped(self, figures: Figures, progress: float) -> Figures:
        """Move lmbda and beta towards their targets."""
        face_bytes = self.lmbda.average(torch.tensor([figures["bytes"]]))
        mse = self.beta.average(torch.tensor([figures["mse"]]))
        if self.config.target_bytes is not None:
            self.lmbda.move(torch.log(face_bytes / self.config.target_bytes), progress)
        if self.config.target_psnr_db is not None:
            self.beta.move(self.config.target_psnr_db + 10 * torch.log10(mse), progress)
        return {
            "psnr_db": -10 * math.log10(figures["mse"]),
            "lmbda": float(self.lmbda.weight),
            "beta": float(self.beta.weight),
        }

    @torch.no_grad()
    def _taught(self, faces: Tensor, votes: Tensor) -> Tensor:
        share = self.config.teacher_share
        if not share:
            return votes
        # A face and its mirror image show the same expression; their mean teaches better.
        logits = (self.teacher(faces) + self.teacher(faces.flip(3))) / 2
        return share * torch.softmax(logits, dim=1) + (1 - share) * votes

    def evaluate(self, model: nn.Module, valid: Examples) -> Figures:
        """Accuracy, ideal bytes and PSNR with rounded latents."""
        joint = model["joint"]  # type: ignore[index]  # a ModuleDict, as built above
        right, bits, psnr = 0, 0.0, 0.0
        for x, m in in_parts(valid, device_of(model)):
            y_hat = torch.round(joint.analysis(x))
            right += int((joint.classifier(y_hat).argmax(dim=1) == m).sum())
            bits += float(joint.prior.bits(y_hat).sum())
            psnr += psnr_sum(joint.synthesis(y_hat), x)
        n = len(valid)
        return {"accuracy": right / n, "bytes": bits / 8 / n, "psnr_db": psnr / n}
