"""The entropy model: one distribution for each (channel, row, column) of the latent.

Faces are aligned, so what a symbol is likely to be depends on where it stands; nothing else is
needed to decode, and nothing has to be sent.
"""

import torch
from torch import Tensor, nn

# Keeps log2 finite and bounds what one far-off symbol can do to a batch's rate.
MIN_LIKELIHOOD = 2.0**-20


class PositionalPrior(nn.Module):
    """A mixture of logistics for every position of the latent (C, H, W)."""

    def __init__(self, shape: tuple[int, int, int], components: int = 2) -> None:
        super().__init__()
        self.shape = shape
        size = (components, *shape)
        self.weights = nn.Parameter(torch.zeros(size))
        self.means = nn.Parameter(
            torch.linspace(-0.5, 0.5, components).view(-1, 1, 1, 1).expand(size).clone()
        )
        self.log_scales = nn.Parameter(torch.zeros(size))

    def bits(self, y: Tensor) -> Tensor:
        """-log2 of the mass within ±½ of y, for y noisy or rounded; same shape as y."""
        # Measured from the tail that y lies in: 1 - sigmoid loses all digits far out.
        scale = torch.exp(-self.log_scales.clamp(-5, 6))
        centred = y.unsqueeze(1) - self.means
        sign = -torch.sign(centred).detach()
        upper = torch.sigmoid(sign * (centred + 0.5) * scale)
        lower = torch.sigmoid(sign * (centred - 0.5) * scale)
        mass = ((upper - lower).abs() * torch.softmax(self.weights, dim=0)).sum(dim=1)
        return -torch.log2(mass.clamp_min(MIN_LIKELIHOOD))

    @torch.no_grad()
    def pmf(self, lowest: int, highest: int) -> Tensor:
        """Probabilities of the integers lowest..highest: (highest - lowest + 1, C, H, W)."""
        symbols = torch.arange(lowest, highest + 1, dtype=torch.float32)
        grid = symbols.view(-1, 1, 1, 1).expand(-1, *self.shape)
        return torch.exp2(-self.bits(grid))
