"""Lets enhancement layers that were trained with one base read another.

A base that was trained further says nearly the same in other words: of what the latent was, a
linear map of what it is explains 94% where a base went on for forty epochs. Put before what reads
the latent, and multiplied into it, it costs nothing and the pictures stay as good as they were.
"""

import torch
from torch import Tensor, nn

from trainer.models.base import BaseModel
from trainer.models.enhancement import EnhancementModel

# Of the normal equations: latents that are hardly ever anything must not be what explains.
RIDGE = 10.0


@torch.no_grad()
def rebase_to(model: EnhancementModel, old: BaseModel, new: BaseModel, faces: Tensor) -> Tensor:
    """Let a model that was trained given one base read another; both in eval mode.

    faces: (N, 1, 48, 48) in 0..1, thousands of those to train on. Returns e (N, E, 1, 1) of them.
    """
    level = torch.arange(len(faces)) % len(new.log_gains)
    before, now = (base.coded(base.analysis(faces), level)[0] for base in (old, new))
    if not torch.equal(before, now):
        rebase(model, before, now)
    e: Tensor = model.analysis(faces, now)
    return e


@torch.no_grad()
def rebase(model: EnhancementModel, old: Tensor, new: Tensor) -> None:
    """Let what read the latents old read new instead, both decoded ones (N, C, 3, 3) of faces."""
    linear, shift = _translation(new.flatten(1), old.flatten(1))
    for layer in (model.analysis.given, model.synthesis.drawn[0]):
        _read_through(layer, linear, shift)  # type: ignore[arg-type]  # what a Sequential holds
    # It reads each position by itself and has one bias for all, so nothing can be shifted.
    by_position, _ = _translation(_positions(new), _positions(old))
    given = model.synthesis.given
    given.weight.copy_(torch.einsum("no,oabc->nabc", by_position, given.weight))


def _translation(new: Tensor, old: Tensor) -> tuple[Tensor, Tensor]:
    """Linear map and shift that make the most of (N, A) look like (N, B): (A, B), (B,)."""
    known = torch.cat([new, torch.ones(len(new), 1)], dim=1)
    kept_small = torch.full((known.shape[1],), RIDGE)
    kept_small[-1] = 0  # but not the shift
    normal = known.T @ known + torch.diag(kept_small)
    found = torch.linalg.solve(normal, known.T @ old)
    return found[:-1], found[-1]


def _read_through(layer: nn.Linear, linear: Tensor, shift: Tensor) -> None:
    """Translate the first inputs of a layer, those that are of the latent."""
    read = layer.weight[:, : len(shift)].clone()
    layer.bias.add_(read @ shift)
    layer.weight[:, : len(linear)] = read @ linear.T


def _positions(latents: Tensor) -> Tensor:
    return latents.flatten(2).permute(0, 2, 1).reshape(-1, latents.shape[1])
