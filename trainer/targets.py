"""Loss weights that move to meet a target: dual ascent in the log domain.

A constraint "at most B bytes" turns rate + distortion into a Lagrangian whose multiplier is the
weight of the rate; gradient ascent on it raises the weight while the constraint is missed and
lowers it while there is slack. In the log domain, so that a weight never changes sign and a miss
by a factor of two moves it the same wherever it stands.

Networks answer a weight late, and ascent alone overshoots by a factor of five before they do. A
proportional term damps that, as in a PI controller (Shao et al., 2020, "ControlVAE",
arXiv:2004.05988); at the target it is 1 and what is left is dual ascent.
"""

import torch
from torch import Tensor, nn

# Steps over which a batch's figures are averaged.
MEMORY_STEPS = 30
WEIGHT_RANGE = (1e-5, 1e2)
# Figures are never negative; NaN would spread into the averaged networks.
NOTHING_SEEN = -1.0


class Multiplier(nn.Module):
    """One weight, or one for every rate, that follows how far its target is missed.

    start: the weights (R,) to start from. gain: share by which a weight moves in a step, for a
    miss of 1 (natural log, dB or points, whatever move is told), at most. settling_share: untrained
    networks miss every target, and weights that followed would wind up: they hold still so long.
    proportion: the weight is also e^(proportion · miss) times what ascent made of it. most: the
    largest weight: a target that cannot be met must not drown what else is optimised.
    Everything is a buffer, so that a checkpoint holds it.
    """

    weight: Tensor
    ascended: Tensor
    mean: Tensor

    def __init__(
        self,
        start: list[float],
        gain: float,
        settling_share: float,
        proportion: float = 0.0,
        most: float = WEIGHT_RANGE[1],
    ) -> None:
        super().__init__()
        self.most = most
        self.gain, self.settling_share, self.proportion = gain, settling_share, proportion
        self.register_buffer("weight", torch.tensor(start))
        self.register_buffer("ascended", torch.tensor(start))
        self.register_buffer("mean", torch.full((len(start),), NOTHING_SEEN))

    def average(self, figures: Tensor) -> Tensor:
        """Take in a batch's figures (R,), not negative. Returns their running means (R,).

        Figures and means are on the CPU, wherever the weight is.
        """
        seen = self.mean.cpu()
        old = torch.where(seen == NOTHING_SEEN, figures, seen)
        return self.mean.copy_(old + (figures - old) / MEMORY_STEPS).cpu()

    def move(self, miss: Tensor, progress: float) -> None:
        """Raise the weights where miss (R,) is positive, lower them where it is negative."""
        if progress >= self.settling_share:
            bounded = miss.clamp(-1, 1).to(self.weight.device)
            self.ascended.mul_(torch.exp(self.gain * bounded)).clamp_(WEIGHT_RANGE[0], self.most)
            self.weight.copy_(self.ascended * torch.exp(self.proportion * bounded))
