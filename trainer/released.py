"""A bundle's networks as they are trained, for going on from what was released.

A bundle's networks are ONNX files in which norms are folded into the convolutions before them, so
as restored each norm only adds what its convolution added: the same function, in eval mode.
`unfold_norms` makes norms of them that do the same in training. Priors and what was imitated of a
teacher are not in a bundle; `fit_prior` finds a prior of the latents again.
"""

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from mien.bundle import load_bundle
from trainer.evaluate import BUNDLE_FILES
from trainer.models.base import Analysis, BaseModel
from trainer.models.enhancement import EnhancementModel
from trainer.models.prior import PositionalPrior
from trainer.onnx_export import weights_of
from trainer.rebasing import rebase_to

# What the exporter calls the bias that it has folded into a convolution.
_FOLDED = ".weight_bias"
_NOT_RELEASED = ("prior.", "classifier.imitation.", "dead")
PRIOR_STEPS, PRIOR_FACES, PRIOR_RATE = 300, 256, 2e-2

# Of so many faces drawn at random: noisy latents, and half of a quantisation step.
Latents = Callable[[int, torch.Generator], tuple[Tensor, Tensor]]


class OtherNetworksError(ValueError):
    """A bundle's networks have other sizes than those that they are restored to."""


def begin_base(base: BaseModel, folder: Path, faces: Tensor) -> None:
    """Load the base layer of the bundle in folder into base, for training it further.

    faces: (N, 1, 48, 48) in 0..1, thousands of those to train on. Raises as restore_base does.
    """
    restore_base(base, folder)
    unfold_norms(base.analysis, faces)
    with torch.no_grad():
        y, gains = base.eval().analysis(faces), torch.exp(base.log_gains)

    def latents(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        face = torch.randint(len(y), (count,), generator=generator)
        level = torch.randint(len(gains), (count,), generator=generator)
        half = 0.5 / gains[level][:, :, None, None]
        noise = torch.rand((count, *base.prior.shape), generator=generator) - 0.5
        return y[face] + noise * 2 * half, half

    fit_prior(base.prior, latents)


def begin_enhancement(
    model: EnhancementModel, base: BaseModel, folder: Path, faces: Tensor
) -> None:
    """Load the enhancement layers of the bundle in folder into model, for training them further.

    base: what they are coded given, in eval mode; where it is another than the bundle's, they are
    translated. faces: as for begin_base. Raises as restore_enhancement does.
    """
    restore_enhancement(model, folder)
    before = copy.deepcopy(base)
    restore_base(before, folder)
    with torch.no_grad():
        e = model.with_dead_zone(rebase_to(model, before.eval(), base, faces))

    def latents(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        face = torch.randint(len(e), (count,), generator=generator)
        noise = torch.rand((count, *model.prior.shape), generator=generator) - 0.5
        return e[face] + noise, torch.tensor(0.5)

    fit_prior(model.prior, latents)


def restore_base(base: BaseModel, folder: Path) -> str:
    """Load the base layer's networks of the bundle in folder, for eval mode. Returns its id.

    Raises BundleError for a folder that is no bundle, OtherNetworksError.
    """
    bundle = load_bundle(folder, BUNDLE_FILES)
    states = {"log_gains": torch.from_numpy(np.log(bundle.tables.gains))}
    for file in ("analysis.onnx", "classifier.onnx"):
        states |= weights_of(onnx.load_from_string(bundle.read(file)))
    for convolution, name, norm in _normed(base.analysis):
        bias = states.get(f"{convolution}{_FOLDED}")
        if bias is not None:
            states |= {f"{name}.{part}": state for part, state in _adding(bias, norm).items()}
    _load(base, states)
    return bundle.bundle_id


def restore_enhancement(model: EnhancementModel, folder: Path) -> None:
    """Load g_e and g_s of the bundle in folder into model.

    Raises BundleError for a folder that is no bundle, OtherNetworksError.
    """
    bundle = load_bundle(folder, BUNDLE_FILES)
    states = weights_of(onnx.load_from_string(bundle.read("enhancement.onnx")))
    _load(model, states | weights_of(onnx.load_from_string(bundle.read("synthesis.onnx"))))


@torch.no_grad()
def unfold_norms(analysis: Analysis, faces: Tensor) -> None:
    """Let each norm of a restored analysis do in training, too, what it does in eval mode.

    In training it takes the statistics of its batch: so those of faces (N, 1, 48, 48) in 0..1,
    thousands of them, become its own, and its weight and bias undo them.
    """
    read: dict[nn.BatchNorm2d, Tensor] = {}
    norms = [norm for _, _, norm in _normed(analysis) if norm.affine]
    hooks = [
        norm.register_forward_pre_hook(lambda norm, inputs: read.update({norm: inputs[0]}))
        for norm in norms
    ]
    analysis.eval()(faces)
    for hook in hooks:
        hook.remove()
    for norm in norms:
        variance, mean = torch.var_mean(read[norm], dim=(0, 2, 3), correction=0)
        norm.running_mean, norm.running_var = mean, variance
        norm.bias.add_(mean)
        norm.weight.copy_(torch.sqrt(variance + norm.eps))


def fit_prior(prior: PositionalPrior, latents: Latents) -> None:
    """Fit a prior to latents that stay as they are."""
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(prior.parameters(), lr=PRIOR_RATE)
    for step in range(PRIOR_STEPS):
        for group in optimizer.param_groups:
            group["lr"] = PRIOR_RATE * (1 + math.cos(math.pi * step / PRIOR_STEPS)) / 2
        noisy, half = latents(PRIOR_FACES, generator)
        bits = prior.bits(noisy, half).sum(dim=(1, 2, 3)).mean()
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(bits)
        optimizer.step()


def _load(model: nn.Module, states: Mapping[str, Tensor]) -> None:
    owned = {
        name: state
        for name, state in model.state_dict().items()
        if not name.startswith(_NOT_RELEASED) and not name.endswith("num_batches_tracked")
    }
    wrong = [n for n, s in owned.items() if n not in states or states[n].shape != s.shape]
    if wrong:
        raise OtherNetworksError(f"the bundle's networks are others: {wrong[:4]}")
    model.load_state_dict({name: states[name] for name in owned}, strict=False)


def _normed(analysis: Analysis) -> Iterator[tuple[str, str, nn.BatchNorm2d]]:
    """Each convolution's name, and the norm that was made after it and reads it."""
    convolution = ""
    for name, module in analysis.named_modules(prefix="analysis"):
        if isinstance(module, nn.Conv2d):
            convolution = name
        elif isinstance(module, nn.BatchNorm2d):
            yield convolution, name, module


def _adding(bias: Tensor, norm: nn.BatchNorm2d) -> dict[str, Tensor]:
    """The states of a batch norm that, in eval mode, adds a bias and does nothing else."""
    spread = torch.full_like(bias, 1 - norm.eps)
    if not norm.affine:  # one that can only subtract
        return {"running_mean": -bias, "running_var": spread}
    still = {"weight": torch.ones_like(bias), "running_mean": torch.zeros_like(bias)}
    return {**still, "bias": bias, "running_var": spread}
