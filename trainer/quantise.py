"""Quantisation while training: additive noise first, straight-through rounding later."""

import torch
from torch import Tensor


def with_noise(y: Tensor) -> Tensor:
    """y plus uniform noise in ±½, which has rounding's variance (Ballé et al., 2017)."""
    return y + torch.rand_like(y) - 0.5


def straight_through(y: Tensor) -> Tensor:
    """Rounded y whose gradient is that of y (Theis et al., 2017)."""
    return y + (torch.round(y) - y).detach()
