"""The enhancement layers' stage: g_e and g_s, given a base layer that is trained already."""

from collections.abc import Mapping
from itertools import accumulate
from types import MappingProxyType

import torch
from torch import Tensor, nn

from trainer.config import EnhancementConfig
from trainer.examples import Examples, device_of, in_parts
from trainer.models.base import BaseModel
from trainer.models.enhancement import EnhancementModel
from trainer.models.resnet import ResNet18
from trainer.quantise import straight_through
from trainer.stages import Batch, Figures, augmented, psnr_sum, seen
from trainer.targets import Multiplier

RATE_GAIN, SETTLING_SHARE, PROPORTION = 0.004, 0.05, 0.5
# Of the steps: those in which bits are of noisy symbols, and those in which lmbda rises.
NOISE_SHARE, RAMP_SHARE = 0.3, 0.05
# Of the faces of a batch, so many are shown with all layers, so many with none.
WHOLE_SHARE, BARE_SHARE = 0.65, 0.08
# Below this MSE a decibel is not worth any bits.
LEAST_MSE = 2e-4
# What the teacher sees is asked of this share of the faces: it costs more than all else.
SEEN_SHARE = 0.35


class EnhancementStage:
    """What makes a face viewable, coded given the base; the first layers do without the later."""

    name = "enhancement"
    # The components are nearly right from the start.
    learning_rate_shares: Mapping[str, float] = MappingProxyType(
        {"net.analysis.components": 0.1, "net.synthesis.components": 0.1}
    )

    def __init__(
        self, config: EnhancementConfig, model: EnhancementModel, base: BaseModel, teacher: ResNet18
    ) -> None:
        self.config, self.net = config, model
        self.base, self.teacher = base, teacher
        for frozen in (base, teacher):
            frozen.eval().requires_grad_(False)
        self.frozen: tuple[nn.Module, ...] = (self.base, self.teacher)
        layers = len(config.layer_bytes)
        self.targets = torch.tensor(config.layer_bytes)
        self.lmbda = Multiplier([config.lmbda] * layers, RATE_GAIN, SETTLING_SHARE, PROPORTION)
        self.model: nn.Module = nn.ModuleDict({"net": model, "lmbda": self.lmbda})
        ends = list(accumulate(config.layer_channels))
        self.layer = torch.zeros(layers, ends[-1])
        for index, (end, size) in enumerate(zip(ends, config.layer_channels, strict=True)):
            self.layer[index, end - size : end] = 1

    def prepare(
        self, faces: Tensor, votes: Tensor, progress: float, generator: torch.Generator
    ) -> Batch:
        """Augmented faces, how many layers of each are shown, noise, and the base's level."""
        faces, _ = augmented(faces, votes, self.config, progress, generator)
        n = len(faces)
        shown = layers_shown(n, len(self.targets), generator)
        noise = torch.rand((n, *self.net.prior.shape), generator=generator) - 0.5
        level = torch.randint(len(self.base.log_gains), (n,), generator=generator)
        return faces, shown, noise, level

    def loss(self, batch: Batch, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Decibels of MSE + lmbda · bits + expression · what the teacher sees."""
        faces, shown, noise, level = batch
        with torch.no_grad():
            y_hat = self.base.coded(self.base.analysis(faces), level)[0]
        e = self.net.with_dead_zone(self.net.analysis(faces, y_hat).float())
        e_hat = straight_through(e)
        layer = self.layer.to(e.device)
        there = (torch.arange(len(layer), device=e.device) < shown[:, None]).float()
        coded = e + noise if progress < NOISE_SHARE else e_hat
        bits = self._layer_bits(self.net, coded)
        x_hat = self.net.synthesis(y_hat, e_hat * (there @ layer)[:, :, None, None])
        mse = (x_hat - faces).square().mean(dim=(1, 2, 3))
        weight = self.lmbda.weight * min(1.0, progress / RAMP_SHARE + 0.05)
        loss = (10 * torch.log10(mse + LEAST_MSE) + (bits * there) @ weight).mean()
        if self.config.expression:
            part = slice(0, max(1, round(len(faces) * SEEN_SHARE)))
            loss = loss + self.config.expression * seen(self.teacher, faces[part], x_hat[part])
        whole = (shown == len(self.targets)).float()
        psnr = -10 * torch.log10(mse.detach().clamp_min(1e-9))
        means = bits.detach().mean(dim=0) / 8
        return loss, {
            "psnr_db": (psnr * whole).sum() / whole.sum().clamp_min(1),
            **{f"bytes_{index}": mean for index, mean in enumerate(means)},
        }

    def _layer_bits(self, net: EnhancementModel, e_hat: Tensor) -> Tensor:
        """Bits of each face and layer; no product of matrices, which autocast would round."""
        bits = net.prior.bits(e_hat).sum(dim=(2, 3))
        return (bits[:, None] * self.layer.to(bits.device)).sum(dim=2)

    def stepped(self, figures: Figures, progress: float) -> Figures:
        """Move lmbda towards the bytes of each layer."""
        seen = torch.tensor([figures[f"bytes_{index}"] for index in range(len(self.targets))])
        mean = self.lmbda.average(seen)
        if progress > RAMP_SHARE:
            self.lmbda.move(torch.log(mean / self.targets), progress)
        return {"lmbda_last": float(self.lmbda.weight[-1])}

    @torch.no_grad()
    def evaluate(self, model: nn.Module, valid: Examples) -> Figures:
        """Ideal bytes and PSNR after each layer, the base being of a middle level."""
        net: EnhancementModel = model["net"]  # type: ignore[index]  # a ModuleDict, as built above
        layers, layer = len(self.targets), self.layer.to(device_of(model))
        psnr, total = [0.0] * (layers + 1), torch.zeros(layers, device=layer.device)
        for x, _ in in_parts(valid, layer.device):
            level = torch.full((len(x),), len(self.base.log_gains) // 2, device=x.device)
            y_hat = self.base.coded(self.base.analysis(x), level)[0]
            e_hat = torch.round(net.with_dead_zone(net.analysis(x, y_hat)))
            total += self._layer_bits(net, e_hat).sum(dim=0) / 8
            for shown in range(layers + 1):
                mask = layer[:shown].sum(dim=0)[:, None, None]
                psnr[shown] += psnr_sum(net.synthesis(y_hat, e_hat * mask), x)
        return {
            **{f"bytes_{i}": value for i, value in enumerate((total / len(valid)).tolist())},
            **{f"psnr_db_{shown}": total / len(valid) for shown, total in enumerate(psnr)},
        }


def layers_shown(faces: int, layers: int, generator: torch.Generator) -> Tensor:
    """With how many layers each face of a batch is drawn, (N,): mostly all, now and then none."""
    drawn = torch.rand(faces, generator=generator)
    some = 1 + torch.randint(max(layers - 1, 1), (faces,), generator=generator)
    shown = torch.where(drawn < WHOLE_SHARE, layers, some)
    return torch.where(drawn > 1 - BARE_SHARE, 0, shown)
