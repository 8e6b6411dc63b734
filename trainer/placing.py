"""Puts quality levels where they were asked for, after training: by their gains alone.

A level that costs less than it may gets finer steps: the classifier asks for no more bits than tell
it the expression, and what is to spare goes to a classifier of tomorrow, which may ask for more. A
level that costs more gets coarser steps in those channels that the answers miss the least.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.examples import Examples, device_of, in_parts
from trainer.models.base import BaseModel
from trainer.stages import soft_cross_entropy

# Natural logarithms of gains: twenty times as fine at most, and how much coarser a channel gets.
MOST_FINER = 3.0
COARSER = (-0.1, -0.3)
ROUNDS = 16
MOST_CHANGES = 32
# Of a face, in bits: what changes less than that cannot be compared.
LEAST_SAVING = 0.02


@torch.no_grad()
def latents(base: BaseModel, faces: Examples) -> Tensor:
    """y of faces as they are, (N, C, 3, 3)."""
    return torch.cat([base.analysis(part) for part, _ in in_parts(faces, device_of(base))])


@dataclass(frozen=True)
class Placing:
    """A trained base, and the faces by which its levels are placed.

    y: latents (N, C, 3, 3). votes: (N, K), the distributions that the answers are held against.
    """

    base: BaseModel
    y: Tensor
    votes: Tensor

    @torch.no_grad()
    def added(self, level_bytes: Sequence[float]) -> list[list[float]]:
        """What to add to log_gains (levels, C) so that each level costs its ideal bytes a face."""
        every = []
        for level, most in enumerate(level_bytes):
            gains = self.base.log_gains[level]
            costs_less = self._bits(gains) < 8 * most
            found = (self._finer if costs_less else self._coarser)(level, gains, 8 * most)
            every.append((found - gains).tolist())
        return every

    def _finer(self, level: int, gains: Tensor, most: float) -> Tensor:
        low, high = 0.0, MOST_FINER
        for _ in range(ROUNDS):
            middle = (low + high) / 2
            if self._bits(gains + middle) < most:
                low = middle
            else:
                high = middle
        return gains + low

    def _coarser(self, level: int, gains: Tensor, most: float) -> Tensor:
        for _ in range(MOST_CHANGES):
            bits, missed = self._bits(gains), self._missed(level, gains)
            if bits <= most:
                break
            price = {}
            for channel in range(len(gains)):
                for step in COARSER:
                    tried = gains.clone()
                    tried[channel] += step
                    saving = bits - self._bits(tried)
                    if saving > LEAST_SAVING:
                        price[channel, step] = (self._missed(level, tried) - missed) / saving
            if not price:
                break
            channel, step = min(price, key=price.__getitem__)
            gains = gains.clone()
            gains[channel] += step
        return gains

    def _decoded(self, gains: Tensor) -> tuple[Tensor, Tensor]:
        """The decoded latents, and half of a step."""
        scale = torch.exp(gains)[:, None, None]
        return torch.round(self.y * scale) / scale, (0.5 / scale)[None]

    def _bits(self, gains: Tensor) -> float:
        return float(self.base.prior.bits(*self._decoded(gains)).sum(dim=(1, 2, 3)).mean())

    def _missed(self, level: int, gains: Tensor) -> float:
        """Cross-entropy of the answers with the votes, nats a face."""
        levels = torch.full((len(self.y),), level)
        return float(
            soft_cross_entropy(self.base.classifier(self._decoded(gains)[0], levels), self.votes)
        )
