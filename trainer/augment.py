"""Augmentation of face batches, a pure function of a generator.

Covers what the dataset's own crops do not show and cameras do: framing, roll, light, blur,
low resolution, noise, occlusion.
"""

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Augmentation:
    """Ranges of the random changes; all uniform, all per face.

    scale: zoom about the centre, 1 ± scale. shift: fraction of the width. roll_deg: degrees.
    contrast: gain 1 ± contrast. brightness: added, on a 0..1 scale. gamma: exponent 2^±gamma.
    blur_share, erase_share, noise_share: probability of each a face.
    """

    scale: float = 0.15
    shift: float = 0.07
    roll_deg: float = 12.0
    contrast: float = 0.3
    brightness: float = 0.15
    gamma: float = 0.5
    blur_share: float = 0.25
    erase_share: float = 0.3
    noise_share: float = 0.2

    def scaled(self, factor: float) -> "Augmentation":
        """The same changes, all of them smaller or rarer by this factor."""
        return Augmentation(**{name: float(value) * factor for name, value in asdict(self).items()})


def augment(faces: Tensor, ranges: Augmentation, generator: torch.Generator) -> Tensor:
    """Randomly changed faces.

    faces: float32 (N, 1, H, W) in 0..1. Returns the same shape and range.
    """
    faces = _warp(faces, ranges, generator)
    faces = _light(faces, ranges, generator)
    faces = _blur(faces, ranges.blur_share, generator)
    faces = _noise(faces, ranges.noise_share, generator)
    return faces.clamp(0, 1)


def erase(faces: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Fill a random rectangle (up to 14 of 48 pixels a side) of some faces with one grey."""
    n, _, height, width = faces.shape
    size = 6 + (_uniform(2, n, generator) + 1) / 2 * (height * 14 / 48 - 6)
    top = (_uniform(1, n, generator)[0] + 1) / 2 * (height - size[0])
    left = (_uniform(1, n, generator)[0] + 1) / 2 * (width - size[1])
    rows = torch.arange(height).view(1, height, 1)
    columns = torch.arange(width).view(1, 1, width)
    inside = _between(rows, top, size[0]) & _between(columns, left, size[1])
    chosen = torch.rand(n, generator=generator).view(n, 1, 1) < share
    grey = torch.rand(n, generator=generator).view(n, 1, 1, 1)
    return torch.where((inside & chosen).unsqueeze(1), grey, faces)


def mixup(
    faces: Tensor, targets: Tensor, alpha: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Blend each face with another of the batch (Zhang et al., 2018, arXiv:1710.09412).

    One weight a batch, from a symmetric Beta approximated by a power of a uniform draw, so that
    the draw comes from the given generator. targets: (N, K) distributions.
    """
    order = torch.randperm(len(faces), generator=generator)
    weight = 1 - 0.5 * float(torch.rand(1, generator=generator)) ** (1 / alpha)
    return (
        weight * faces + (1 - weight) * faces[order],
        weight * targets + (1 - weight) * targets[order],
    )


def _uniform(rows: int, n: int, generator: torch.Generator) -> Tensor:
    return torch.rand(rows, n, generator=generator) * 2 - 1


def _between(index: Tensor, start: Tensor, size: Tensor) -> Tensor:
    start, size = start.view(-1, 1, 1), size.view(-1, 1, 1)
    return (index >= start) & (index < start + size)


def _warp(faces: Tensor, ranges: Augmentation, generator: torch.Generator) -> Tensor:
    n = len(faces)
    draws = _uniform(5, n, generator)
    roll = draws[0] * ranges.roll_deg * torch.pi / 180
    zoom = 1 + draws[1] * ranges.scale
    mirror = torch.where(draws[2] < 0, -1.0, 1.0)
    cos, sin = torch.cos(roll) / zoom, torch.sin(roll) / zoom
    theta = torch.stack(
        [
            torch.stack([cos * mirror, -sin, draws[3] * 2 * ranges.shift], dim=1),
            torch.stack([sin * mirror, cos, draws[4] * 2 * ranges.shift], dim=1),
        ],
        dim=1,
    )
    grid = F.affine_grid(theta, list(faces.shape), align_corners=False)
    return F.grid_sample(faces, grid, padding_mode="reflection", align_corners=False)


def _light(faces: Tensor, ranges: Augmentation, generator: torch.Generator) -> Tensor:
    draws = _uniform(3, len(faces), generator).view(3, -1, 1, 1, 1)
    faces = faces.clamp(1e-4, 1) ** torch.exp2(draws[0] * ranges.gamma)
    mean = faces.mean(dim=(1, 2, 3), keepdim=True)
    return (faces - mean) * (1 + draws[1] * ranges.contrast) + mean + draws[2] * ranges.brightness


def _blur(faces: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Lower the resolution to a half to nine tenths, or leave it."""
    side = int(faces.shape[-1] * (0.5 + 0.4 * float(torch.rand(1, generator=generator))))
    small = F.interpolate(faces, size=(side, side), mode="bilinear", antialias=True)
    low = F.interpolate(small, size=faces.shape[-2:], mode="bilinear")
    chosen = torch.rand(len(faces), generator=generator).view(-1, 1, 1, 1) < share
    return torch.where(chosen, low, faces)


def _noise(faces: Tensor, share: float, generator: torch.Generator) -> Tensor:
    sigma = 0.05 * torch.rand(len(faces), generator=generator).view(-1, 1, 1, 1)
    chosen = torch.rand(len(faces), generator=generator).view(-1, 1, 1, 1) < share
    return faces + torch.randn(faces.shape, generator=generator) * sigma * chosen
