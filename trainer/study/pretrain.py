"""The generic codec: rate and distortion on photographs, nothing else."""

import math
from collections import defaultdict

import torch
from torch import Tensor, nn

from trainer.examples import Examples, device_of, in_parts
from trainer.models.hyperprior import VariableRateHyperprior
from trainer.stages import EVERYTHING_ALIKE, Batch, Figures, psnr_sum
from trainer.study.config import PretrainConfig
from trainer.study.rates import check_rates


class PretrainStage:
    """bits per pixel + lmbda · 255² · MSE, all rates in every batch."""

    name = "pretrain"
    frozen: tuple[nn.Module, ...] = ()
    learning_rate_shares = EVERYTHING_ALIKE

    def __init__(self, config: PretrainConfig, codec: VariableRateHyperprior) -> None:
        self.config = config
        self.model: nn.Module = codec
        self.codec = codec
        self.lmbdas = torch.tensor(config.lmbdas)
        check_rates(codec.rates, config.lmbdas)

    def prepare(
        self, faces: Tensor, votes: Tensor, progress: float, generator: torch.Generator
    ) -> Batch:
        """The crops, a rate for each, and the noise that stands in for rounding."""
        rates = torch.arange(len(faces)) % self.codec.rates
        return faces, rates, *self.codec.noise(faces, generator)

    def loss(self, batch: Batch, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Bits per pixel + lmbda · 255² · MSE."""
        faces, rates, y_noise, z_noise = batch
        coded = self.codec(faces, rates, y_noise, z_noise)
        mse = (coded.x_hat - faces).square().mean(dim=(1, 2, 3))
        bpp = coded.bits / (faces.shape[-1] * faces.shape[-2])
        lmbdas = self.lmbdas.to(rates.device)[rates]
        loss = (bpp + lmbdas * 255**2 * mse).mean()
        return loss, {"bpp": bpp.detach().mean(), "mse": mse.detach().mean()}

    def stepped(self, figures: Figures, progress: float) -> Figures:
        """Nothing to move; the error in dB."""
        return {"psnr_db": -10 * math.log10(figures["mse"])}

    def evaluate(self, model: nn.Module, valid: Examples) -> Figures:
        """Bytes by entropy and PSNR at every rate."""
        return rate_distortion(model, valid)  # type: ignore[arg-type]


def rate_distortion(codec: VariableRateHyperprior, valid: Examples) -> Figures:
    """Mean ideal bytes and PSNR in dB at every rate."""
    sums: Figures = defaultdict(float)
    # Pictures outside, rates inside: those that stay in files are read once.
    for x, _ in in_parts(valid, device_of(codec)):
        for rate in range(codec.rates):
            coded = codec.estimate(x, rate)
            sums[f"bytes_{rate}"] += float(coded.bits.sum()) / 8
            sums[f"psnr_db_{rate}"] += psnr_sum(coded.x_hat, x)
    return {name: total / len(valid) for name, total in sums.items()}
