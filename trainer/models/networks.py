"""Trunk, pixel classifier, analysis transform g_a, synthesis transform g_s, latent classifier.

    face ── g_a ── y ── round ── y_hat ─┬─ latent classifier ── logits
      48×48×1     C×3×3                 └─ g_s ── reconstruction 48×48×1

The pixel classifier is the same trunk with a head of its own: it is trained first, lends its
trunk to g_a as a start, and then teaches.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from trainer.models.blocks import ResidualBlock, Upsample, initialise


class Trunk(nn.Module):
    """Four stages of stride 2: (N, 1, 48, 48) in 0..1 → (N, widths[3], 3, 3)."""

    def __init__(self, widths: tuple[int, int, int, int]) -> None:
        super().__init__()
        w0, w1, w2, w3 = widths
        self.stem = nn.Conv2d(1, w0, 5, 2, 2, bias=False)
        self.norm = nn.BatchNorm2d(w0)
        self.stages = nn.Sequential(
            ResidualBlock(w0, w0),
            ResidualBlock(w0, w1, 2),
            ResidualBlock(w1, w2, 2),
            ResidualBlock(w2, w3, 2),
        )
        self.apply(initialise)

    def forward(self, faces: Tensor) -> Tensor:
        """Centre the faces about 0 and run the stages."""
        stages: Tensor = self.stages(F.relu(self.norm(self.stem((faces - 0.5) * 4))))
        return stages


class PixelClassifier(nn.Module):
    """Expression logits (N, K) from faces (N, 1, 48, 48) in 0..1."""

    def __init__(self, widths: tuple[int, int, int, int], classes: int, dropout: float) -> None:
        super().__init__()
        self.trunk = Trunk(widths)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(widths[3], classes)

    def forward(self, faces: Tensor) -> Tensor:
        """Logits, before softmax."""
        logits: Tensor = self.head(self.dropout(self.trunk(faces).mean(dim=(2, 3))))
        return logits


class Analysis(nn.Module):
    """g_a: faces (N, 1, 48, 48) in 0..1 → latent y (N, C, 3, 3), quantised with step 1."""

    def __init__(self, widths: tuple[int, int, int, int], channels: int) -> None:
        super().__init__()
        self.trunk = Trunk(widths)
        self.project = nn.Conv2d(widths[3], channels, 1)

    def forward(self, faces: Tensor) -> Tensor:
        """The latent before quantisation."""
        y: Tensor = self.project(self.trunk(faces))
        return y


class Synthesis(nn.Module):
    """g_s: y_hat (N, C, 3, 3) → faces (N, 1, 48, 48), about 0..1, not clamped."""

    def __init__(self, channels: int, widths: tuple[int, int, int, int]) -> None:
        super().__init__()
        w0, w1, w2, w3 = widths
        self.layers = nn.Sequential(
            nn.Conv2d(channels, w0, 3, 1, 1),
            ResidualBlock(w0, w0),
            Upsample(w0, w1),
            ResidualBlock(w1, w1),
            Upsample(w1, w2),
            ResidualBlock(w2, w2),
            Upsample(w2, w3),
            nn.ReLU(),
            nn.Conv2d(w3, 4, 3, 1, 1),
            nn.PixelShuffle(2),
        )
        self.apply(initialise)
        # Start from a flat grey: a loud first picture would drown the other losses.
        nn.init.normal_(self.layers[-2].weight, std=1e-3)  # type: ignore[arg-type]

    def forward(self, y_hat: Tensor) -> Tensor:
        """The reconstruction."""
        faces: Tensor = self.layers(y_hat) + 0.5
        return faces


class LatentClassifier(nn.Module):
    """Expression logits (N, K) straight from y_hat (N, C, 3, 3)."""

    def __init__(self, channels: int, width: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            ResidualBlock(width, width),
            ResidualBlock(width, width),
        )
        self.apply(initialise)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, classes)

    def forward(self, y_hat: Tensor) -> Tensor:
        """Logits, before softmax."""
        logits: Tensor = self.head(self.dropout(self.layers(y_hat).mean(dim=(2, 3))))
        return logits
