"""The last stage: g_s for the symbols that devices choose.

Until here symbols were rounded, for a gradient goes through rounding. What is coded is a way
through a trellis (mien.trellis_choice), and lies otherwise around what was analysed; so the rest
stays as it is and g_s learns to draw from that.
"""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mien.layers import LayersCodec
from mien.trellis import HALF_STEPS
from trainer.config import SynthesisConfig
from trainer.enhancement_stage import LEAST_MSE, layers_shown
from trainer.evaluate import CHUNK_FACES
from trainer.examples import Examples, as_float, device_of, in_parts
from trainer.layer_tables import tables_for
from trainer.models.base import BaseModel
from trainer.models.enhancement import EnhancementModel
from trainer.models.resnet import ResNet18
from trainer.stages import Batch, Figures, augmented, psnr_sum, seen

# By so many faces the tables are counted, and by so many of them the bytes.
COUNTED_FACES, COUNTED_BYTES = 3_000, 512
# How often the gain is moved, and by what share its step changes the bytes.
PLACINGS, SHARE_OF_A_GAIN = 3, 0.11


class SynthesisStage:
    """Pictures with all layers are to be near, and nothing else: whether the expression is to be
    read off them is seen to afterwards (trainer.models.consistency). Those that lack layers show
    little, and that little shall be what the teacher looks at.

    layers: by which symbols are chosen, see `placed`.
    """

    name = "synthesis"
    # Linear, and nearly right from the start.
    learning_rate_shares: Mapping[str, float] = MappingProxyType({"net.synthesis.components": 0.1})

    def __init__(
        self,
        config: SynthesisConfig,
        model: EnhancementModel,
        base: BaseModel,
        teacher: ResNet18,
        layers: LayersCodec,
    ) -> None:
        self.config, self.net, self.layers = config, model, layers
        self.base, self.teacher = base, teacher
        for frozen in (base, teacher, model.analysis, model.prior):
            frozen.eval().requires_grad_(False)
        model.dead.requires_grad_(False)
        self.frozen: tuple[nn.Module, ...] = (self.base, self.teacher)
        self.model: nn.Module = nn.ModuleDict({"net": model})
        self.ends = layers.ends

    def prepare(
        self, faces: Tensor, votes: Tensor, progress: float, generator: torch.Generator
    ) -> Batch:
        """Augmented faces, how many layers of each are shown, and the base's level."""
        faces, _ = augmented(faces, votes, self.config, progress, generator)
        shown = layers_shown(len(faces), len(self.ends), generator)
        level = torch.randint(len(self.base.log_gains), (len(faces),), generator=generator)
        return faces, shown, level

    def loss(self, batch: Batch, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Decibels of MSE + expression · what the teacher sees of pictures that lack layers."""
        faces, shown, level = batch
        y_hat, e_hat = coded(self.net, self.base, self.layers, faces, level)
        ends = torch.tensor([0, *self.ends], device=shown.device)[shown]
        there = torch.arange(e_hat.shape[1], device=shown.device) < ends[:, None]
        x_hat = self.net.synthesis(y_hat, e_hat * there[:, :, None, None])
        mse = (x_hat - faces).square().mean(dim=(1, 2, 3))
        loss = 10 * torch.log10(mse + LEAST_MSE).mean()
        less = torch.nonzero(shown < len(self.ends))[:, 0]
        if self.config.expression and len(less):
            weight = self.config.expression * len(less) / len(faces)
            loss = loss + weight * seen(self.teacher, faces[less], x_hat[less])
        whole = (shown == len(self.ends)).float()
        psnr = -10 * torch.log10(mse.detach().clamp_min(1e-9))
        return loss, {"psnr_db": (psnr * whole).sum() / whole.sum().clamp_min(1)}

    def stepped(self, figures: Figures, progress: float) -> Figures:
        """Nothing follows a step."""
        return {}

    @torch.no_grad()
    def evaluate(self, model: nn.Module, valid: Examples) -> Figures:
        """PSNR after each layer, the base being of a middle level."""
        net: EnhancementModel = model["net"]  # type: ignore[index]  # a ModuleDict, as built above
        psnr = [0.0] * (len(self.ends) + 1)
        for x, _ in in_parts(valid, device_of(model)):
            level = torch.full((len(x),), len(self.base.log_gains) // 2, device=x.device)
            y_hat, e_hat = coded(net, self.base, self.layers, x, level)
            for shown, end in enumerate([0, *self.ends]):
                layered = e_hat.clone()
                layered[:, end:] = 0
                psnr[shown] += psnr_sum(net.synthesis(y_hat, layered), x)
        return {f"psnr_db_{shown}": total / len(valid) for shown, total in enumerate(psnr)}


@torch.no_grad()
def coded(
    model: EnhancementModel, base: BaseModel, layers: LayersCodec, faces: Tensor, level: Tensor
) -> tuple[Tensor, Tensor]:
    """ŷ (N, C, 3, 3) of faces (N, 1, 48, 48), and what their enhancements' symbols stand for.

    In full precision, as devices analyse: half of a large component's is coarser than a step.
    """
    with torch.autocast(faces.device.type, enabled=False):
        y_hat = base.coded(base.analysis(faces), level)[0]
        e = model.analysis(faces, y_hat)
    symbols = layers.chosen(e.cpu().numpy())
    return y_hat, torch.from_numpy(layers.values(symbols)).to(faces.device) / HALF_STEPS


@torch.no_grad()
def placed(
    config: SynthesisConfig,
    layer_channels: Sequence[int],
    model: EnhancementModel,
    base: BaseModel,
    train: Examples,
) -> LayersCodec:
    """Move the model's gain until all layers cost config.bytes; a codec with tables for that.

    layer_channels: how many channels each layer has, the first one's first.
    """
    faces = as_float(train.pixels[:COUNTED_FACES])
    level = torch.arange(len(faces)) % len(base.log_gains)
    y_hat = base.coded(base.analysis(faces), level)[0]
    for _ in range(PLACINGS):
        e = model.analysis(faces, y_hat).numpy()
        codec = LayersCodec(tables_for(e, layer_channels))
        found = _bytes_a_face(codec, e[:COUNTED_BYTES])
        model.analysis.finer(math.log(config.bytes / found) / SHARE_OF_A_GAIN)
    return LayersCodec(tables_for(model.analysis(faces, y_hat).numpy(), layer_channels))


def _bytes_a_face(codec: LayersCodec, e: NDArray[np.float32]) -> float:
    symbols = list(codec.chosen(e))
    chunks = [symbols[start : start + CHUNK_FACES] for start in range(0, len(e), CHUNK_FACES)]
    return sum(len(layer) for chunk in chunks for layer in codec.encode(b"", chunk)) / len(e)
