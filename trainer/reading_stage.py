"""The reading stage: the latent classifier once more, given latents and levels that stay."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from trainer.base_stage import accuracy_and_bytes
from trainer.config import ReadingConfig
from trainer.examples import Examples
from trainer.models.base import BaseModel
from trainer.models.resnet import ResNet18
from trainer.stages import (
    EVERYTHING,
    EVERYTHING_ALIKE,
    Batch,
    Figures,
    augmented,
    cross_entropies,
)


class ReadingStage:
    """Teaches what reads the latent alone.

    While the analysis was learning, its classifier read latents that were never the same twice, and
    gains that were not the final ones.
    """

    name = "reading"
    learning_rate_shares: Mapping[str, float] = EVERYTHING_ALIKE
    sharpened = EVERYTHING

    def __init__(self, config: ReadingConfig, base: BaseModel, teacher: ResNet18) -> None:
        self.config, self.base, self.teacher = config, base, teacher
        for frozen in (base, teacher):
            frozen.eval().requires_grad_(False)
        self.frozen: tuple[nn.Module, ...] = (base, teacher)
        self.model: nn.Module = base.classifier.requires_grad_(True)
        base.classifier.dropout.p = config.dropout

    def prepare(
        self, faces: Tensor, votes: Tensor, progress: float, generator: torch.Generator
    ) -> Batch:
        """Augmented faces, their targets, and a level each."""
        faces, targets = augmented(faces, votes, self.config, progress, generator)
        level = torch.randint(len(self.base.log_gains), (len(faces),), generator=generator)
        return faces, targets, level

    def loss(self, batch: Batch, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy with votes and teacher."""
        faces, votes, level = batch
        with torch.no_grad():
            y_hat = self.base.coded(self.base.analysis(faces).float(), level)[0]
            said = torch.softmax(self.teacher(faces).float(), dim=1)
        goal = self.config.teacher_share * said + (1 - self.config.teacher_share) * votes
        loss = cross_entropies(self.model(y_hat, level), goal).mean()
        return loss, {"cross_entropy": loss.detach()}

    def stepped(self, figures: Figures, progress: float) -> Figures:
        """Nothing to note."""
        return {}

    def evaluate(self, model: nn.Module, valid: Examples) -> Figures:
        """Accuracy and ideal bytes of each level, with rounded latents."""
        return accuracy_and_bytes(self.base, model, valid)
