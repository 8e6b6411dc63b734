"""What the networks are built from."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Squeeze(nn.Module):
    """Scales channels by what the whole map holds (Hu et al., 2018, arXiv:1709.01507)."""

    def __init__(self, width: int, shrink: int = 6) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, width // shrink), nn.Linear(width // shrink, width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W), same shape out."""
        scale = torch.sigmoid(self.up(F.relu(self.down(x.mean(dim=(2, 3))))))
        return x * scale[:, :, None, None]


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut (He et al., 2016, arXiv:1512.03385).

    A shortcut that shrinks averages first (ResNet-D, He et al., 2019, arXiv:1812.01187).
    squeezed: whether the other branch is, at its end.
    """

    def __init__(
        self, inputs: int, outputs: int, stride: int = 1, *, squeezed: bool = False
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.squeeze: nn.Module = Squeeze(outputs) if squeezed else nn.Identity()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.AvgPool2d(stride) if stride != 1 else nn.Identity(),
                nn.Conv2d(inputs, outputs, 1, bias=False),
                nn.BatchNorm2d(outputs),
            )

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) → (N, outputs, H / stride, W / stride)."""
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.squeeze(self.norm2(self.conv2(y))) + self.shortcut(x))


class Upsample(nn.Sequential):
    """Doubles height and width: a 1×1 convolution and pixel shuffle."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(nn.Conv2d(inputs, outputs * 4, 1), nn.PixelShuffle(2))


def initialise(module: nn.Module) -> None:
    """Variance-preserving weights (He et al., 2015, arXiv:1502.01852); for Module.apply."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
