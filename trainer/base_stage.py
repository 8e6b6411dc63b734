"""The base layer's stage: analysis, gains, prior and latent classifier, all levels at once."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.config import BaseConfig
from trainer.examples import Examples, device_of, in_parts
from trainer.models.base import BaseModel
from trainer.models.resnet import ResNet18
from trainer.stages import EVERYTHING_ALIKE, Batch, Figures, augmented, cross_entropies
from trainer.targets import Multiplier

RATE_GAIN, SETTLING_SHARE, PROPORTION = 0.004, 0.08, 0.5
# Of the lowest level's first lmbda; beyond, its bits would be all that the analysis learns.
MOST_RISE = 3.0


class BaseStage:
    """Codec and latent classifier together, taught by votes and by the pixel classifier.

    The pixel classifier is asked about each face as the student sees it, augmented and blended
    (Beyer et al., 2022, "Knowledge distillation: A good teacher is patient and consistent",
    arXiv:2106.05237).

    Each face of a batch is coded at two levels, half of all levels apart: the analysis, which is
    nearly all of the cost, runs once for both.
    """

    name = "base"
    learning_rate_shares: Mapping[str, float] = EVERYTHING_ALIKE

    def __init__(self, config: BaseConfig, model: BaseModel, teacher: ResNet18) -> None:
        self.config, self.base, self.teacher = config, model, teacher
        teacher.eval().requires_grad_(False)
        self.frozen: tuple[nn.Module, ...] = (teacher,)
        # Each of the teacher's features with mean 0 and spread 1.
        self.normal = nn.BatchNorm1d(model.classifier.imitation.out_features, affine=False)
        self.targets = torch.tensor(config.level_bytes)
        low, high = torch.log10(torch.tensor(config.lmbda)).tolist()
        start = torch.logspace(low, high, len(self.targets)).tolist()
        self.lmbda = Multiplier(
            start, RATE_GAIN, SETTLING_SHARE, PROPORTION, most=MOST_RISE * config.lmbda[0]
        )
        # One module, so that a checkpoint holds the multipliers too.
        self.model: nn.Module = nn.ModuleDict(
            {"base": model, "lmbda": self.lmbda, "normal": self.normal}
        )

    @property
    def levels(self) -> int:
        """How many quality levels are learnt."""
        return len(self.targets)

    def prepare(
        self, faces: Tensor, votes: Tensor, progress: float, generator: torch.Generator
    ) -> Batch:
        """Augmented faces, their targets, a level each, and noise for two codings."""
        faces, targets = augmented(faces, votes, self.config, progress, generator)
        first = torch.randint(self.levels, (len(faces),), generator=generator)
        shape = (len(faces), 2, *self.base.prior.shape)
        return faces, targets, first, torch.rand(shape, generator=generator) - 0.5

    def loss(self, batch: Batch, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """lmbda · bits + cross-entropy + imitation · distance of features."""
        faces, targets, first, noise = batch
        y = torch.cat([self.base.analysis(faces).float()] * 2)
        level = torch.cat([first, (first + self.levels // 2) % self.levels])
        y_hat, bits, _ = self.base.coded(y, level)
        half = 0.5 / self.base.gains(level)
        noisy = y + torch.cat([noise[:, 0], noise[:, 1]]) * 2 * half
        # Not of what is rounded: just below where rounding begins, a symbol would cost nothing and
        # be worth something in every step that lifts it over.
        rate = self.base.prior.bits(noisy, half).sum(dim=(1, 2, 3))
        if progress < self.config.noise_share:
            y_hat = noisy
        logits, features = self.base.classifier.taught(y_hat, level)
        entropies, imitated = self._missed(faces, targets, logits, features)
        weight = self.lmbda.weight[level] * self._ramp(progress)
        loss = (weight * rate + entropies).mean() + self.config.imitation * imitated
        chosen = F.one_hot(level, self.levels).float()
        mean_bytes = (bits.detach() / 8) @ chosen / chosen.sum(0).clamp_min(1)
        return loss, {
            "cross_entropy": entropies.mean().detach(),
            "imitated": imitated.detach(),
            **{f"bytes_{index}": mean_bytes[index] for index in range(self.levels)},
        }

    def _ramp(self, progress: float) -> float:
        share = self.config.ramp_share
        return min(1.0, progress / share + 0.02) if share else 1.0

    def _missed(
        self, faces: Tensor, votes: Tensor, logits: Tensor, features: Tensor
    ) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            made = self.teacher.features(faces)
            said = torch.softmax(self.teacher.classify(made).float(), dim=1)
            seen = self.normal(made[-1].float().mean(dim=(2, 3)))
        share = self.config.teacher_share
        goal = share * said + (1 - share) * votes
        entropies = cross_entropies(logits, torch.cat([goal, goal]))
        return entropies, F.mse_loss(features, torch.cat([seen, seen]))

    def stepped(self, figures: Figures, progress: float) -> Figures:
        """Move lmbda towards the bytes of each level."""
        seen = torch.tensor([figures[f"bytes_{index}"] for index in range(self.levels)])
        mean = self.lmbda.average(seen)
        if progress > self.config.ramp_share:
            self.lmbda.move(torch.log(mean / self.targets), progress)
        return {"lmbda_lowest": float(self.lmbda.weight[0])}

    @torch.no_grad()
    def evaluate(self, model: nn.Module, valid: Examples) -> Figures:
        """Accuracy and ideal bytes of each level, with rounded latents."""
        base: BaseModel = model["base"]  # type: ignore[index]  # a ModuleDict, as built above
        right, total = torch.zeros(2, self.levels, device=device_of(model))
        for x, m in in_parts(valid, device_of(model)):
            y = base.analysis(x)
            for index in range(self.levels):
                level = torch.full((len(x),), index, device=x.device)
                y_hat, bits, _ = base.coded(y, level)
                right[index] += (base.classifier(y_hat, level).argmax(dim=1) == m).sum()
                total[index] += bits.sum() / 8
        means = {"accuracy": right / len(valid), "bytes": total / len(valid)}
        return {
            f"{name}_{index}": value
            for name, values in means.items()
            for index, value in enumerate(values.tolist())
        }
