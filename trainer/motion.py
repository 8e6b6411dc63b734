"""Stills that move: sequences of one face as a camera would see it, simulated.

A sequence wanders from one augmented view of the face towards another: turning, shifting and
zooming a little, in light that drifts, with fresh noise in each frame. Some are nearly still,
others fast.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

# Of the steps from frame to frame: half of the sequences are below the median, few far above.
MEDIAN_STEP, SPREAD = 0.35, 1.0
ROLL, ZOOM, SHIFT, LIGHT, NOISE = 0.02, 0.012, 0.012, 0.015, 0.006


def moving(faces: Tensor, frames: int, generator: torch.Generator) -> list[Tensor]:
    """Views of each face in the order of time, float (N, 1, H, W) in 0..1 as faces are."""
    n = len(faces)
    speed = MEDIAN_STEP * torch.exp(SPREAD * torch.randn(n, generator=generator))
    pose = 2 * torch.randn(4, n, generator=generator)
    light = 2 * torch.randn(2, n, generator=generator)
    noise = NOISE * torch.rand(n, generator=generator).view(-1, 1, 1, 1) * 2
    target = faces[torch.randperm(n, generator=generator)]
    mixed = torch.zeros(n)
    views = []
    for _ in range(frames):
        seen = faces + mixed.view(-1, 1, 1, 1) * (target - faces)
        seen = _lit(_posed(seen, pose), light)
        seen = seen + noise * torch.randn(seen.shape, generator=generator)
        views.append(seen.clamp(0, 1))
        pose = pose + speed * torch.randn(4, n, generator=generator)
        light = light + speed * torch.randn(2, n, generator=generator)
        mixed = (mixed + 0.02 * speed * torch.rand(n, generator=generator)).clamp(0, 0.3)
    return views


def _posed(faces: Tensor, pose: Tensor) -> Tensor:
    roll, zoom = ROLL * pose[0], torch.exp(ZOOM * pose[1])
    cos, sin = torch.cos(roll) * zoom, torch.sin(roll) * zoom
    rows = [
        torch.stack([cos, -sin, SHIFT * pose[2]], dim=1),
        torch.stack([sin, cos, SHIFT * pose[3]], dim=1),
    ]
    grid = F.affine_grid(torch.stack(rows, dim=1), list(faces.shape), align_corners=False)
    return F.grid_sample(faces, grid, padding_mode="reflection", align_corners=False)


def _lit(faces: Tensor, light: Tensor) -> Tensor:
    brightness, contrast = LIGHT * light.view(2, -1, 1, 1, 1)
    lit: Tensor = (faces - 0.5) * (1 + contrast) + 0.5 + brightness
    return lit
