"""A picture that agrees with the base layer: g_a must read of it what it read of the face.

    picture ── g_a ── y' ──┐
       ↑                   ├── how far y' is outside of the cell that rounded to the symbols
       └──── gradient ─────┘

The base's symbols say in which cell of the latent the face lies, and a reconstruction often lies
outside: its pixels are near the face's, its expression is not. So it is moved into the cell, by a
few steps of gradient descent, as JPEG's block artefacts were once taken out by projecting onto what
its coefficients allow (Zakhor, 1992, "Iterative procedures for reduction of blocking effects in
transform image coding"). The steps go where reconstructions are wrong as a rule: along the
strongest directions of their errors. That costs no PSNR and no byte: whoever decodes knows it all.

ONNX knows no gradients, so this one is written out.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.models.base import Analysis
from trainer.models.blocks import ResidualBlock, Squeeze

STEPS = 8
STEP, SHORTER = 1e-3, 0.25
# Of half a quantisation step: how near to the middle of its cell a picture is moved.
NEAR = 0.5
# Directions of errors; in all others they are taken to be alike.
DIRECTIONS = 256


class FoldedConv(nn.Module):
    """A convolution and the norm after it as they are in eval mode, and its gradient."""

    weight: Tensor
    bias: Tensor

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.stride, self.padding = conv.stride[0], cast("int", conv.padding[0])
        mean, variance = norm.running_mean, norm.running_var
        if mean is None or variance is None:
            raise ValueError("a norm without statistics cannot be folded")
        scale = torch.rsqrt(variance + norm.eps) * (norm.weight if norm.affine else 1.0)
        shift = (norm.bias if norm.affine else 0.0) - mean * scale
        self.register_buffer("weight", (conv.weight * scale[:, None, None, None]).detach())
        self.register_buffer("bias", shift.detach())

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) → (N, outputs, H / stride, W / stride)."""
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding)

    def back(self, slope: Tensor) -> Tensor:
        """The slope by what was read, of that by what was made."""
        more = self.stride - 1
        return F.conv_transpose2d(slope, self.weight, None, self.stride, self.padding, more)


class FoldedBlock(nn.Module):
    """A squeezed ResidualBlock as it is in eval mode, and its gradient."""

    def __init__(self, block: ResidualBlock) -> None:
        super().__init__()
        self.conv1 = FoldedConv(block.conv1, block.norm1)
        self.conv2 = FoldedConv(block.conv2, block.norm2)
        squeeze = cast("Squeeze", block.squeeze)
        self.down, self.up = squeeze.down, squeeze.up
        self.shrink, self.shortcut = 1, None
        if isinstance(block.shortcut, nn.Sequential):
            pool, conv, norm = block.shortcut
            self.shrink = cast("int", pool.kernel_size) if isinstance(pool, nn.AvgPool2d) else 1
            self.shortcut = FoldedConv(cast("nn.Conv2d", conv), cast("nn.BatchNorm2d", norm))

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """What the block makes of x, and what `back` wants."""
        inner = F.relu(self.conv1(x))
        branch = self.conv2(inner)
        small = F.relu(self.down(branch.mean(dim=(2, 3))))
        scale = torch.sigmoid(self.up(small))
        beside = x if self.shrink == 1 else F.avg_pool2d(x, self.shrink)
        if self.shortcut is not None:
            beside = self.shortcut(beside)
        y = F.relu(branch * scale[:, :, None, None] + beside)
        return y, (inner, branch, small, scale, y)

    def back(self, slope: Tensor, made: tuple[Tensor, ...]) -> Tensor:
        """The slope by what was read, of that by what was made."""
        inner, branch, small, scale, y = made
        slope = slope * (y > 0).float()
        by_scale = (slope * branch).sum(dim=(2, 3)) * scale * (1 - scale)
        by_small = (by_scale @ self.up.weight) * (small > 0).float()
        area = branch.shape[2] * branch.shape[3]
        by_mean = (by_small @ self.down.weight)[:, :, None, None] / area
        by_inner = self.conv2.back(slope * scale[:, :, None, None] + by_mean)
        beside = slope if self.shortcut is None else self.shortcut.back(slope)
        if self.shrink != 1:
            beside = F.interpolate(beside, scale_factor=float(self.shrink)) / self.shrink**2
        return self.conv1.back(by_inner * (inner > 0).float()) + beside


class FoldedAnalysis(nn.Module):
    """g_a as it is in eval mode, and its gradient by the face."""

    def __init__(self, analysis: Analysis) -> None:
        super().__init__()
        self.stem = FoldedConv(analysis.stem, analysis.norm)
        self.stages = nn.ModuleList(FoldedBlock(cast("ResidualBlock", b)) for b in analysis.stages)
        self.project = FoldedConv(analysis.project, analysis.scale)

    def forward(self, faces: Tensor) -> tuple[Tensor, list[tuple[Tensor, ...]]]:
        """y (N, C, 3, 3) of faces (N, 1, 48, 48) in 0..1, and what `back` wants."""
        x = F.relu(self.stem((faces - 0.5) * 4))
        made: list[tuple[Tensor, ...]] = [(x,)]
        for stage in self.stages:
            x, kept = stage(x)
            made.append(kept)
        return self.project(x), made

    def back(self, slope: Tensor, made: list[tuple[Tensor, ...]]) -> Tensor:
        """The slope by the faces, (N, 1, 48, 48), of that by y."""
        slope = self.project.back(slope)
        for stage, kept in zip(reversed(self.stages), reversed(made), strict=False):
            slope = cast("FoldedBlock", stage).back(slope, kept)
        return self.stem.back(slope * (made[0][0] > 0).float()) * 4


class Consistency(nn.Module):
    """Moves reconstructions into the cells of the base layer that they were sent with.

    errors: reconstruction errors (M, P), thousands of them, whose strongest directions are taken.
    """

    directions: Tensor
    strengths: Tensor

    def __init__(self, analysis: Analysis, errors: Tensor) -> None:
        super().__init__()
        self.analysis = FoldedAnalysis(analysis)
        values, vectors = torch.linalg.eigh(errors.T @ errors)
        values = values.flip(0) / values.mean()
        count = min(DIRECTIONS, len(values) - 1)
        rest = values[count:].mean()
        self.register_buffer("directions", vectors.flip(1)[:, :count].T.contiguous())
        self.register_buffer("strengths", values[:count] - rest)
        self.rest = float(rest)

    def forward(self, faces: Tensor, y_hat: Tensor, half: Tensor) -> Tensor:
        """Faces (N, 1, H, W) that g_a reads as y_hat (N, C, 3, 3), or more nearly so.

        half: of a quantisation step, (N, C, 1, 1), of which NEAR is near enough. A step that leads
        further away is taken back, and a shorter one tried.
        """
        half = half * NEAR
        outside, made = self._outside(faces, y_hat, half)
        far = outside.square().sum(dim=(1, 2, 3), keepdim=True)
        slope = self._along(self.analysis.back(outside, made))
        step = torch.full_like(far, STEP)
        for _ in range(STEPS):
            tried = faces - step * slope
            outside, made = self._outside(tried, y_hat, half)
            now = outside.square().sum(dim=(1, 2, 3), keepdim=True)
            nearer = now < far
            faces, far = torch.where(nearer, tried, faces), torch.where(nearer, now, far)
            slope = torch.where(nearer, self._along(self.analysis.back(outside, made)), slope)
            step = torch.where(nearer, step, step * SHORTER)
        return faces

    def _outside(
        self, faces: Tensor, y_hat: Tensor, half: Tensor
    ) -> tuple[Tensor, list[tuple[Tensor, ...]]]:
        """How far outside of its cell each y lies, (N, C, 3, 3), and what `back` wants."""
        y, made = self.analysis(faces)
        beyond = y - y_hat
        return beyond - torch.minimum(torch.maximum(beyond, -half), half), made

    def _along(self, slope: Tensor) -> Tensor:
        flat = slope.flatten(1)
        strong = ((flat @ self.directions.T) * self.strengths) @ self.directions
        return (strong + self.rest * flat).view_as(slope)
