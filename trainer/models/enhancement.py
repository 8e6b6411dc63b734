"""Enhancement layers: what a viewable face needs beyond the base, coded given the base.

    face ── components, gain ── trellis ── symbols ─┐
                   │        E×1×1, in layers        ├── g_s ── reconstruction
    base ŷ ────────┴────────────────────────────────┘
     C×3×3

Aligned faces have so much in common that a few hundred numbers, their principal components (Turk
and Pentland, 1991, "Eigenfaces for recognition"), say more per byte than the maps of a small
convolutional network: so that is where the analysis begins, and it stays linear but for a gain of
each face's own. What is not linear is in the synthesis, which runs in the cloud.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.config import ModelConfig
from trainer.data.faces import FACE_SIZE
from trainer.models.blocks import Upsample
from trainer.models.prior import PositionalPrior
from trainer.quantise import straight_through

PIXELS = FACE_SIZE * FACE_SIZE
# Of a side: the convolutions of g_s begin at 12×12.
SHRINK = 4
# Where training begins: the step of a component, in pixels of 0..1.
FIRST_STEP = 0.23
# How much finer a face is coded for each step of its gain.
GAIN_STEP = 0.15
# Steps of gain, up or down: six times as fine, or as coarse.
MOST_GAIN = 12.0


def principal_components(faces: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Mean (P,) and the strongest components (count, P), orthonormal, of faces (N, P)."""
    mean = faces.mean(dim=0)
    centred = faces - mean
    _, vectors = torch.linalg.eigh(centred.T @ centred / len(faces))
    return mean, vectors.flip(1)[:, :count].T.contiguous()


class PlainBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut, and nothing else.

    Without batch norm: what a batch has in common is no business of a picture's, and its noise
    costs decibels (Lim et al., 2017, arXiv:1707.02921).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, 1, 1)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, H, W), same shape out."""
        y: Tensor = x + self.conv2(F.leaky_relu(self.conv1(x), 0.1))
        return y


class EnhancementAnalysis(nn.Module):
    """g_e: faces (N, 1, 48, 48) in 0..1 and ŷ (N, C, 3, 3) → e (N, E, 1, 1), in steps of 1.

    The first of the E is the face's gain, in steps of GAIN_STEP, a whole number already; the others
    are components, the strongest first.
    """

    def __init__(self, base: int, channels: int) -> None:
        super().__init__()
        self.components = nn.Linear(PIXELS, channels - 1)
        self.given = _silent(nn.Linear(base * 9, channels - 1))
        self.gain = nn.Sequential(nn.Linear(channels - 1, 64), nn.ReLU(), _silent(nn.Linear(64, 1)))

    @torch.no_grad()
    def finer(self, gains: float) -> None:
        """Code every face by so many gains more."""
        last: nn.Linear = self.gain[-1]  # type: ignore[assignment]  # as built above
        last.bias.add_(gains)

    def forward(self, faces: Tensor, y_hat: Tensor) -> Tensor:
        """The enhancement before quantisation."""
        e = self.components(faces.flatten(1)) + self.given(y_hat.flatten(1))
        size = torch.log1p(e.abs())
        gain = straight_through(self.gain(size).clamp(-MOST_GAIN, MOST_GAIN))
        e = e * torch.exp(gain * GAIN_STEP)
        return torch.cat([gain, e], dim=1)[:, :, None, None]


class LayeredSynthesis(nn.Module):
    """g_s: ŷ (N, C, 3, 3) and e (N, E, 1, 1) → faces (N, 1, 48, 48), about 0..1, not clamped.

    Components whose layers are not there are zeros. A linear picture, what components and base say
    about it together, and what convolutions at a quarter and at half of its size make better of it.
    """

    def __init__(self, base: int, channels: int, widths: tuple[int, int, int]) -> None:
        super().__init__()
        hidden, w0, w1 = widths
        self.components = nn.Linear(channels - 1, PIXELS)
        self.drawn = nn.Sequential(
            *(nn.Linear(base * 9 + channels, hidden), nn.ReLU()),
            *(nn.Linear(hidden, hidden), nn.ReLU()),
            _silent(nn.Linear(hidden, PIXELS)),
        )
        self.first = nn.Conv2d(SHRINK**2, w0, 3, 1, 1)
        self.given = nn.ConvTranspose2d(base, w0, 4, 4)
        self.layers = nn.Sequential(
            *(PlainBlock(w0) for _ in range(4)),
            Upsample(w0, w1),
            PlainBlock(w1),
            nn.Conv2d(w1, 4, 3, 1, 1),
            nn.PixelShuffle(2),
        )
        for layer in (self.first, *self.layers):
            layer.apply(_variance_preserving)
        nn.init.normal_(self.layers[-2].weight, std=1e-3)  # type: ignore[arg-type]

    def forward(self, y_hat: Tensor, e: Tensor) -> Tensor:
        """The reconstruction."""
        e = e.flatten(1)
        components = e[:, 1:] * torch.exp(-e[:, :1] * GAIN_STEP)
        # Symbols span orders of magnitude, and which of them are there says most.
        said = torch.cat([y_hat.flatten(1), torch.sign(e) * torch.log1p(e.abs())], dim=1)
        linear = self.components(components) + self.drawn(said)
        picture = linear.view(-1, 1, FACE_SIZE, FACE_SIZE)
        parts = F.pixel_unshuffle((picture - 0.5) * 4, SHRINK)
        parts = parts.contiguous(memory_format=torch.channels_last)
        faces: Tensor = picture + self.layers(self.first(parts) + self.given(y_hat))
        return faces


class EnhancementModel(nn.Module):
    """g_e, a prior for its symbols, and g_s."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        base, channels = config.latent_channels, config.enhancement_channels
        self.analysis = EnhancementAnalysis(base, channels)
        self.prior = PositionalPrior((channels, 1, 1), config.prior_components)
        self.synthesis = LayeredSynthesis(base, channels, config.synthesis_widths)
        self.dead = nn.Parameter(torch.full((channels - 1, 1, 1), -0.4))

    def with_dead_zone(self, e: Tensor) -> Tensor:
        """An enhancement to be rounded, where there is no trellis to choose its symbols.

        Small components are worth less than their bits: a dead zone is what rounding makes of this.
        """
        gain, components = e[:, :1], e[:, 1:]
        left = 1 - torch.sigmoid(self.dead) * torch.exp(-((components / 0.6) ** 2))
        return torch.cat([gain, components * left], dim=1)

    @torch.no_grad()
    def begin(self, faces: Tensor) -> None:
        """Take the principal components of faces (N, 1, 48, 48) in 0..1 for a start."""
        analysis, synthesis = self.analysis.components, self.synthesis.components
        flat, mirrored = faces.flatten(1), faces.flip(3).flatten(1)
        both = torch.cat([flat, mirrored])
        mean, components = principal_components(both, analysis.out_features)
        analysis.weight.copy_(components / FIRST_STEP)
        analysis.bias.copy_(-(components @ mean) / FIRST_STEP)
        synthesis.weight.copy_(components.T * FIRST_STEP)
        synthesis.bias.copy_(mean)
        spread = (flat @ analysis.weight.T + analysis.bias).std(dim=0)
        # A logistic's spread is 1.8 of its scales.
        self.prior.log_scales[:, 1:, 0, 0] = torch.log(spread / 1.8).clamp_min(-1.5)


def _variance_preserving(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="leaky_relu")
        nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    elif isinstance(module, PlainBlock):
        module.conv2.weight.data.mul_(0.1)


def _silent(layer: nn.Linear) -> nn.Linear:
    """Nothing at first: it comes in when it is found to be of use."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
