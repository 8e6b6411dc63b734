"""The base layer of a bundle as networks again, for training what is coded given it.

A bundle's networks are ONNX files in which norms are folded into the convolutions before them, so
here each norm only adds what its convolution added: the same function, in eval mode. Its prior and
what it imitated of a teacher are not in a bundle.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from mien.bundle import load_bundle
from trainer.evaluate import BUNDLE_FILES
from trainer.models.base import Analysis, BaseModel
from trainer.onnx_export import weights_of

# What the exporter calls the bias that it has folded into a convolution.
_FOLDED = ".weight_bias"
_NOT_RELEASED = ("prior.", "classifier.imitation.")


def restore_base(base: BaseModel, folder: Path) -> str:
    """Load the networks of the bundle in folder into base, for eval mode alone. Returns its id.

    Raises BundleError for a folder that is no bundle, ValueError for networks of other sizes.
    """
    bundle = load_bundle(folder, BUNDLE_FILES)
    states = {"log_gains": torch.from_numpy(np.log(bundle.tables.gains))}
    for file in ("analysis.onnx", "classifier.onnx"):
        states |= weights_of(onnx.load_from_string(bundle.read(file)))
    for convolution, name, norm in _normed(base.analysis):
        bias = states.get(f"{convolution}{_FOLDED}")
        if bias is not None:
            states |= {f"{name}.{part}": state for part, state in _adding(bias, norm).items()}
    owned = {
        name: state
        for name, state in base.state_dict().items()
        if not name.startswith(_NOT_RELEASED) and not name.endswith("num_batches_tracked")
    }
    wrong = [n for n, s in owned.items() if n not in states or states[n].shape != s.shape]
    if wrong:
        raise ValueError(f"the bundle's networks are others: {wrong[:4]}")
    base.load_state_dict({name: states[name] for name in owned}, strict=False)
    return bundle.bundle_id


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
