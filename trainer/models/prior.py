"""The entropy model: one distribution for each (channel, row, column) of the latent.

Faces are aligned, so what a symbol is likely to be depends on where it stands; nothing else is
needed to decode, and nothing has to be sent.
"""

import torch
from torch import Tensor, nn

# Keeps log2 finite and bounds what one far-off symbol can do to a batch's rate.
MIN_LIKELIHOOD = 2.0**-20


def mixture_bits(
    y: Tensor, half: Tensor, weights: Tensor, means: Tensor, log_scales: Tensor
) -> Tensor:
    """-log2 of the mass that a mixture of logistics has within ± half of y.

    y: (N, C, H, W). half: the same or smaller. weights (logits), means, log_scales: (K, C, H, W).
    """
    # Measured from the tail that y lies in: 1 - sigmoid loses all digits far out.
    scale = torch.exp(-log_scales)
    centred = y.unsqueeze(1) - means
    sign = -torch.sign(centred).detach()
    upper = torch.sigmoid(sign * (centred + half.unsqueeze(1)) * scale)
    lower = torch.sigmoid(sign * (centred - half.unsqueeze(1)) * scale)
    mass = ((upper - lower).abs() * torch.softmax(weights, dim=0)).sum(dim=1)
    return -torch.log2(mass.clamp_min(MIN_LIKELIHOOD))


class PositionalPrior(nn.Module):
    """A mixture of logistics for every position of the latent (C, H, W).

    spread, log_scale: where the components begin, within ± spread, and how wide.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        components: int = 2,
        spread: float = 0.5,
        log_scale: float = 0.0,
    ) -> None:
        super().__init__()
        self.shape = shape
        size = (components, *shape)
        self.weights = nn.Parameter(torch.zeros(size))
        means = torch.linspace(-spread, spread, components)
        self.means = nn.Parameter(means.view(-1, 1, 1, 1).expand(size).clone())
        self.log_scales = nn.Parameter(torch.full(size, log_scale))

    def bits(self, y: Tensor, half: Tensor | float = 0.5) -> Tensor:
        """-log2 of the mass within ± half of y, for y noisy or rounded; same shape as y.

        half: of a quantisation step, which is 1 where y was not scaled; any that y broadcasts.
        """
        halves = torch.as_tensor(half, device=y.device).expand_as(y)
        return mixture_bits(y, halves, self.weights, self.means, self.log_scales.clamp(-6, 6))
