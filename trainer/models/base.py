"""The base layer's networks: analysis, gains of the quality levels, prior, latent classifier.

face ── g_a ── y ── · gain[level], round ── symbols ── / gain[level] ── classifier ── logits
  48×48×1     C×3×3                        C×3×3                      (told the level)
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.config import ModelConfig
from trainer.data.faces import EXPRESSIONS
from trainer.models.blocks import ResidualBlock, initialise
from trainer.models.prior import PositionalPrior
from trainer.quantise import straight_through


class Analysis(nn.Module):
    """g_a of the base layer: faces (N, 1, 48, 48) in 0..1 → y (N, C, 3, 3), about unit variance."""

    def __init__(self, widths: tuple[int, int, int, int], channels: int) -> None:
        super().__init__()
        w0, w1, w2, w3 = widths
        self.stem = nn.Conv2d(1, w0, 5, 2, 2, bias=False)
        self.norm = nn.BatchNorm2d(w0)
        self.stages = nn.Sequential(
            ResidualBlock(w0, w1, 2, squeezed=True),
            ResidualBlock(w1, w2, 2, squeezed=True),
            ResidualBlock(w2, w2, squeezed=True),
            ResidualBlock(w2, w3, 2, squeezed=True),
        )
        self.project = nn.Conv2d(w3, channels, 1, bias=False)
        self.scale = nn.BatchNorm2d(channels, affine=False)
        self.apply(initialise)

    def forward(self, faces: Tensor) -> Tensor:
        """The latent, before any gain."""
        x = self.stages(F.relu(self.norm(self.stem((faces - 0.5) * 4))))
        y: Tensor = self.scale(self.project(x))
        return y


class Mixer(nn.Module):
    """A residual block of two linear layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.layers = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """(N, width), same out."""
        y: Tensor = x + self.layers(self.norm(x))
        return y


class LatentClassifier(nn.Module):
    """Logits (N, K) from a decoded latent (N, C, 3, 3) and its level (N,)."""

    def __init__(
        self, channels: int, levels: int, width: int, classes: int, features: int, dropout: float
    ) -> None:
        super().__init__()
        self.first = nn.Linear(channels * 9, width)
        self.level = nn.Embedding(levels, width)
        nn.init.zeros_(self.level.weight)
        self.blocks = nn.Sequential(Mixer(width), Mixer(width), nn.LayerNorm(width))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, classes)
        self.imitation = nn.Linear(width, features)

    def hidden(self, y_hat: Tensor, level: Tensor) -> Tensor:
        """What the heads read, (N, width)."""
        hidden: Tensor = self.blocks(self.first(y_hat.flatten(1)) + self.level(level))
        return hidden

    def taught(self, y_hat: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, K), before softmax, and the teacher's features as they are imitated."""
        hidden = self.hidden(y_hat, level)
        return self.head(self.dropout(hidden)), self.imitation(hidden)

    def forward(self, y_hat: Tensor, level: Tensor) -> Tensor:
        """Logits, before softmax."""
        return self.taught(y_hat, level)[0]


class BaseModel(nn.Module):
    """Everything of the base layer. features: of the teacher, which are imitated."""

    def __init__(self, config: ModelConfig, levels: int, features: int) -> None:
        super().__init__()
        channels = config.latent_channels
        self.analysis = Analysis(config.analysis_widths, channels)
        # Of y itself: a level's symbols are slices of one distribution.
        self.prior = PositionalPrior((channels, 3, 3), components=3, spread=0.8, log_scale=-0.6)
        start = torch.linspace(-1.5, 0.8, levels)
        self.log_gains = nn.Parameter(start[:, None].expand(levels, channels).clone())
        self.classifier = LatentClassifier(
            *(channels, levels, config.latent_classifier_width),
            *(len(EXPRESSIONS), features, config.dropout),
        )

    def gains(self, level: Tensor) -> Tensor:
        """Of each face's level (N,): (N, C, 1, 1)."""
        return torch.exp(self.log_gains)[level][:, :, None, None]

    def coded(self, y: Tensor, level: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Decoded latent (N, C, 3, 3), bits (N,), symbols, of latents y at levels (N,)."""
        gains = self.gains(level)
        symbols = straight_through(y * gains)
        y_hat = symbols / gains
        bits = self.prior.bits(y_hat, 0.5 / gains).sum(dim=(1, 2, 3))
        return y_hat, bits, symbols
