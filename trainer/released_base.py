"""The base layer of a bundle as networks again, for training what is coded given it.

A bundle's networks are ONNX files in which norms are folded into the convolutions before them, so
here each norm only adds what its convolution added: the same function, in eval mode. Its prior and
what it imitated of a teacher are not in a bundle.
"""

from pathlib import Path
from typing import cast

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from mien.bundle import load_bundle
from trainer.evaluate import BUNDLE_FILES
from trainer.models.base import BaseModel

_FOLDED, _HALF = ".weight_bias", ".half"
_NOT_RELEASED = ("prior.", "classifier.imitation.")


def restore_base(base: BaseModel, folder: Path) -> str:
    """Load the networks of the bundle in folder into base, for eval mode alone. Returns its id.

    Raises BundleError for a folder that is no bundle, ValueError for networks of other sizes.
    """
    bundle = load_bundle(folder, BUNDLE_FILES)
    states = {
        **_initializers(folder / "analysis.onnx"),
        **_initializers(folder / "classifier.onnx"),
    }
    states["log_gains"] = torch.from_numpy(np.log(bundle.tables.gains))
    for name in [name for name in states if name.endswith(_FOLDED)]:
        norm = _norm_after(name.removesuffix(_FOLDED))
        for part, state in _adding(states[name], _batch_norm(base, norm)).items():
            states[f"{norm}.{part}"] = state
    owned = base.state_dict()
    known = {name: states[name] for name in owned if name in states}
    missing = [n for n in owned if n not in known and not n.startswith(_NOT_RELEASED)]
    missing = [n for n in missing if not n.endswith("num_batches_tracked")]
    wrong = [n for n, state in known.items() if state.shape != owned[n].shape]
    if missing or wrong:
        raise ValueError(f"the bundle's networks are others: {[*missing, *wrong][:4]}")
    base.load_state_dict(known, strict=False)
    return bundle.bundle_id


def _adding(bias: Tensor, norm: nn.BatchNorm2d) -> dict[str, Tensor]:
    """The states of a batch norm that, in eval mode, adds a bias and does nothing else."""
    spread = torch.full_like(bias, 1 - norm.eps)
    if not norm.affine:  # one that can only subtract
        return {"running_mean": -bias, "running_var": spread}
    still = {"weight": torch.ones_like(bias), "running_mean": torch.zeros_like(bias)}
    return {**still, "bias": bias, "running_var": spread}


def _batch_norm(base: BaseModel, name: str) -> nn.BatchNorm2d:
    return cast("nn.BatchNorm2d", base.get_submodule(name))


def _initializers(path: Path) -> dict[str, Tensor]:
    tensors = onnx.load(path).graph.initializer
    arrays = ((t.name.removesuffix(_HALF), numpy_helper.to_array(t)) for t in tensors)
    return {n: torch.from_numpy(a.astype(np.float32)) for n, a in arrays}


def _norm_after(convolution: str) -> str:
    """The norm that reads a convolution, by the names of Analysis and ResidualBlock."""
    parent, _, name = convolution.rpartition(".")
    names = {"stem": "norm", "project": "scale", "conv1": "norm1", "conv2": "norm2", "1": "2"}
    return f"{parent}.{names[name]}"
