"""ResNet-18 at a chosen width, which also shows its inner features.

He et al., 2016 (arXiv:1512.03385), with the averaging shortcuts of ResNet-D. Width 64 is the
paper's classifier; a narrower one trains on two cores.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from trainer.models.blocks import ResidualBlock, initialise

# From this face size on, the stem shrinks by 4 as ResNet's own does; small faces only by 2.
LARGE_FACE = 96


class ResNet18(nn.Module):
    """Expression logits from faces in 0..1.

    channels: 1 for grey, 3 for colour. size: height and width of the faces, pixels.
    """

    def __init__(self, channels: int, size: int, width: int, classes: int, dropout: float) -> None:
        super().__init__()
        large = size >= LARGE_FACE
        kernel = 7 if large else 5
        self.stem = nn.Sequential(
            nn.Conv2d(channels, width, kernel, 2, kernel // 2, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1) if large else nn.Identity(),
        )
        self.stages = nn.ModuleList(
            nn.Sequential(
                ResidualBlock(width * max(1, factor // 2), width * factor, 1 if factor == 1 else 2),
                ResidualBlock(width * factor, width * factor),
            )
            for factor in (1, 2, 4, 8)
        )
        self.apply(initialise)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width * 8, classes)

    def features(self, faces: Tensor) -> list[Tensor]:
        """What each of the four stages makes of the faces (N, channels, size, size)."""
        x = self.stem((faces - 0.5) * 4)
        made = []
        for stage in self.stages:
            x = stage(x)
            made.append(x)
        return made

    def classify(self, features: list[Tensor]) -> Tensor:
        """Logits (N, classes) from what features returned."""
        logits: Tensor = self.head(self.dropout(F.adaptive_avg_pool2d(features[-1], 1).flatten(1)))
        return logits

    def forward(self, faces: Tensor) -> Tensor:
        """Logits (N, classes), before softmax."""
        return self.classify(self.features(faces))
