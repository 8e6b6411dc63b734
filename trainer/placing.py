"""Puts quality levels where they were asked for, after training: by finer gains.

The classifier asks for no more bits than tell it the expression, so the highest levels come out
with fewer than they may have. What they have to spare goes into finer steps of the same latent:
for a classifier of tomorrow, which may ask for more.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from trainer.models.base import BaseModel

# Natural logarithms of a gain: twenty times as fine at most.
MOST_FINER = 3.0
ROUNDS = 16


@torch.no_grad()
def finer(base: BaseModel, y: Tensor, level_bytes: Sequence[float]) -> list[float]:
    """What to add to each level's log_gains, 0 or more, so that it costs what it may.

    y: latents of faces (N, C, 3, 3). level_bytes: ideal bytes a face that a level may cost.
    """
    return [_finer(base, y, level, most) for level, most in enumerate(level_bytes)]


def _finer(base: BaseModel, y: Tensor, level: int, most: float) -> float:
    low, high = 0.0, MOST_FINER
    if _mean_bytes(base, y, level, low) >= most:
        return low
    for _ in range(ROUNDS):
        middle = (low + high) / 2
        if _mean_bytes(base, y, level, middle) < most:
            low = middle
        else:
            high = middle
    return low


def _mean_bytes(base: BaseModel, y: Tensor, level: int, added: float) -> float:
    gains = torch.exp(base.log_gains[level] + added)[:, None, None]
    y_hat = torch.round(y * gains) / gains
    return float(base.prior.bits(y_hat, (0.5 / gains)[None]).sum(dim=(1, 2, 3)).mean() / 8)
