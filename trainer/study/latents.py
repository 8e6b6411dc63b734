"""Teaching the analysis to tell expressions apart, before anything is reconstructed.

    face ── g_a ── y ── Q ── y_hat ── head ── logits
                    rate · cross-entropy

Cross-entropy that reaches g_a by way of g_s and a classifier is noisy and dear: five times the cost
of this. The small head reads the latents themselves and is not kept. The rate's weight starts at a
hundredth and rises: before latents say something, every bit of them looks like one to save. In the
last steps g_s learns to draw what they say, without a say in what that is.
"""

from collections import defaultdict

import torch
from torch import Tensor, nn

from trainer.examples import Examples, device_of, in_parts
from trainer.models.hyperprior import VariableRateHyperprior
from trainer.stages import EVERYTHING_ALIKE, Batch, Figures, augmented, cross_entropies, psnr_sum
from trainer.study.config import LatentsConfig
from trainer.study.rates import balance, by_rate, check_rates

FIRST_WEIGHT = 0.01


def latents_head(channels: int, size: int, width: int, classes: int, dropout: float) -> nn.Module:
    """A classifier of one hidden layer for dequantised latents (N, channels, size, size)."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(channels * size**2, width),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(width, classes),
    )


class LatentsStage:
    """The codec, its synthesis apart from the rest, and the head that latents are taught by.

    Raises ValueError when a setting that counts rates has
    another number of them than the codec.
    """

    name = "latents"
    frozen: tuple[nn.Module, ...] = ()
    learning_rate_shares = EVERYTHING_ALIKE

    def __init__(
        self, config: LatentsConfig, codec: VariableRateHyperprior, head: nn.Module
    ) -> None:
        check_rates(codec.rates, config.lmbdas, config.start_gains)
        self.config, self.codec, self.head = config, codec, head
        self.model: nn.Module = nn.ModuleDict({"codec": codec, "head": self.head})
        self.lmbdas = torch.tensor(config.lmbdas)
        self.balance = balance(self.lmbdas, config.balance)
        codec.scale_gains(config.start_gains)

    def prepare(
        self, faces: Tensor, votes: Tensor, progress: float, generator: torch.Generator
    ) -> Batch:
        """Augmented faces, votes, rates, weights as TuneStage's, and noise."""
        faces, votes = augmented(faces, votes, self.config, progress, generator)
        rates = torch.arange(len(faces)) % self.codec.rates
        weights = len(faces) / torch.bincount(rates)[rates]
        return faces, votes, rates, weights, *self.codec.noise(faces, generator)

    def loss(self, batch: Batch, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """lmbda · bits + cross-entropy, each rate by its balance."""
        faces, votes, rates, weights, y_noise, z_noise = batch
        latents = self.codec.latents(faces, rates, y_noise, z_noise)
        cross_entropy = cross_entropies(self.head(latents.y_hat), votes)
        lmbdas = self.lmbdas.to(rates.device) * self._warmth(progress)
        each = lmbdas[rates] * latents.rounded_bits + cross_entropy
        loss = (self.balance.to(rates.device)[rates] * each).mean()
        if progress >= 1 - self.config.synthesis_share:
            x_hat = self.codec.reconstruct(latents.y_hat.detach())
            loss = loss + self.config.distortion * 100 * (x_hat - faces).square().mean()
        parts = {
            "cross_entropy": cross_entropy.mean().detach(),
            **by_rate("bytes", latents.rounded_bits / 8 * weights, rates, self.codec.rates),
        }
        return loss, parts

    def _warmth(self, progress: float) -> float:
        """From FIRST_WEIGHT to 1, evenly in the logarithm."""
        share = min(1.0, progress / self.config.rate_warmup_share)
        return float(FIRST_WEIGHT ** (1 - share))

    def stepped(self, figures: Figures, progress: float) -> Figures:
        """Nothing to move."""
        return {}

    def evaluate(self, model: nn.Module, valid: Examples) -> Figures:
        """The head's accuracy, ideal bytes and PSNR at every rate."""
        codec, head = model["codec"], model["head"]  # type: ignore[index]  # a ModuleDict
        sums: Figures = defaultdict(float)
        for x, m in in_parts(valid, device_of(model)):
            for rate in range(self.codec.rates):
                coded = codec.estimate(x, rate)
                hits = int((head(coded.y_hat).argmax(dim=1) == m).sum())
                sums[f"accuracy_{rate}"] += hits
                sums[f"bytes_{rate}"] += float(coded.bits.sum()) / 8
                sums[f"psnr_db_{rate}"] += psnr_sum(coded.x_hat, x)
        return {name: total / len(valid) for name, total in sums.items()}
