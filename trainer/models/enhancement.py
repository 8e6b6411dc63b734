"""Enhancement layers: what a viewable face needs beyond the base, coded given the base.

    face ───────── g_e ── e ── round ── symbols ─┐
                    │     E×6×6, in layers       ├── g_s ── reconstruction
    base ŷ ─────────┴────────────────────────────┘
     C×3×3

Without batch norm: what a batch has in common is no business of a picture's, and its noise costs
decibels (Lim et al., 2017, arXiv:1707.02921).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.config import ModelConfig
from trainer.models.blocks import Upsample, initialise
from trainer.models.prior import PositionalPrior


class Gdn(nn.Module):
    """Generalised divisive normalisation, or its inverse (Ballé et al., 2016, arXiv:1511.06281)."""

    def __init__(self, channels: int, inverse: bool = False) -> None:
        super().__init__()
        self.inverse = inverse
        self.beta = nn.Parameter(torch.zeros(channels))
        self.gamma = nn.Parameter(torch.full((channels, channels), -6.0) + 4 * torch.eye(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W), same shape out."""
        gamma, beta = F.softplus(self.gamma)[:, :, None, None], torch.exp(self.beta)
        norm = F.conv2d(x * x, gamma, beta)
        return x * torch.sqrt(norm) if self.inverse else x * torch.rsqrt(norm)


class PlainBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut, and nothing else."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, 1, 1)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, H, W), same shape out."""
        y: Tensor = x + self.conv2(F.leaky_relu(self.conv1(x), 0.1))
        return y


class EnhancementAnalysis(nn.Module):
    """g_e: faces (N, 1, 48, 48) in 0..1 and ŷ (N, C, 3, 3) → e (N, E, 6, 6), in steps of 1."""

    def __init__(self, base: int, channels: int, widths: tuple[int, int]) -> None:
        super().__init__()
        w0, w1 = widths
        self.layers = nn.Sequential(
            nn.Conv2d(1, w0, 5, 2, 2), Gdn(w0), nn.Conv2d(w0, w1, 3, 2, 1), Gdn(w1)
        )
        self.project = nn.Conv2d(w1, channels, 3, 2, 1)
        self.given = nn.ConvTranspose2d(base, channels, 2, 2)
        self.apply(initialise)
        _silence(self.given)
        self.log_gain = nn.Parameter(torch.full((channels,), 1.0))

    def forward(self, faces: Tensor, y_hat: Tensor) -> Tensor:
        """The enhancement before quantisation."""
        x = self.layers((faces - 0.5) * 4)
        gain = torch.exp(self.log_gain)[:, None, None]
        e: Tensor = (self.project(x) + self.given(y_hat)) * gain
        return e


class LayeredSynthesis(nn.Module):
    """g_s: ŷ (N, C, 3, 3) and e (N, E, 6, 6) → faces (N, 1, 48, 48), about 0..1, not clamped.

    Channels of e whose layers are not there are zeros.
    """

    def __init__(self, base: int, channels: int, widths: tuple[int, int, int]) -> None:
        super().__init__()
        w0, w1, w2 = widths
        self.first = nn.Conv2d(channels, w0, 3, 1, 1)
        self.given = nn.ConvTranspose2d(base, w0, 2, 2)
        self.layers = nn.Sequential(
            PlainBlock(w0),
            PlainBlock(w0),
            Gdn(w0, inverse=True),
            Upsample(w0, w1),
            PlainBlock(w1),
            Gdn(w1, inverse=True),
            Upsample(w1, w2),
            PlainBlock(w2),
            nn.Conv2d(w2, 4, 3, 1, 1),
            nn.PixelShuffle(2),
        )
        for layer in (self.first, *self.layers):
            if not isinstance(layer, Gdn):
                layer.apply(_variance_preserving)
        _silence(self.given)
        # Start from a flat grey: a loud first picture would drown the other losses.
        nn.init.normal_(self.layers[-2].weight, std=1e-3)  # type: ignore[arg-type]

    def forward(self, y_hat: Tensor, e: Tensor) -> Tensor:
        """The reconstruction."""
        faces: Tensor = self.layers(self.first(e) + self.given(y_hat)) + 0.5
        return faces


class EnhancementModel(nn.Module):
    """g_e, a prior for its symbols, and g_s."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        base, channels = config.latent_channels, config.enhancement_channels
        self.analysis = EnhancementAnalysis(base, channels, config.enhancement_widths)
        self.prior = PositionalPrior((channels, 6, 6), config.prior_components)
        self.synthesis = LayeredSynthesis(base, channels, config.synthesis_widths)


def _variance_preserving(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="leaky_relu")
        nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    elif isinstance(module, PlainBlock):
        module.conv2.weight.data.mul_(0.1)


def _silence(layer: nn.ConvTranspose2d) -> None:
    """The base comes in when it is found to be of use."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
