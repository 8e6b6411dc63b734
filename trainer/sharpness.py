"""Sharpness-aware steps: the gradient where the loss is worst nearby, not where the weights are.

Networks that are right about 26,000 faces can be so in a valley or on a ledge, and faces that they
have not seen stand a step beside. Foret et al., 2021, "Sharpness-aware minimization", arXiv:
2010.01412; how far to step is by the size of each weight, Kwon et al., 2021, "ASAM",
arXiv:2102.11600.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

# Added to the size of a weight, so that one of nothing moves as well.
LEAST_SIZE = 0.01


@contextmanager
def ascended(
    weights: Sequence[nn.Parameter], gradients: Sequence[Tensor | None], radius: float
) -> Iterator[None]:
    """While it lasts, the weights are where the loss is the worst within a radius.

    gradients: of the loss, one for each weight, None where it has no part in it. radius: rho of
    ASAM; every weight is measured by its own size, and biases and norms (of one dimension) as
    they are. Afterwards weights are what they were, to the bit.
    """
    before = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        sizes = [w.abs() + LEAST_SIZE if w.dim() > 1 else torch.ones_like(w) for w in weights]
        slopes = [
            size * gradient
            for size, gradient in zip(sizes, gradients, strict=True)
            if gradient is not None
        ]
        steepest = torch.sqrt(torch.stack([slope.square().sum() for slope in slopes]).sum())
        for weight, size, gradient in zip(weights, sizes, gradients, strict=True):
            if gradient is not None:
                weight.add_(radius * size.square() * gradient / (steepest + 1e-12))
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, kept in zip(weights, before, strict=True):
                weight.copy_(kept)


@contextmanager
def norms_held(network: nn.Module) -> Iterator[None]:
    """While it lasts, batch norms learn nothing of the batches that pass."""
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
