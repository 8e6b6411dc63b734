"""The base layer of a bundle as networks again, for training what is coded given it.

A bundle's networks are ONNX files in which norms are folded into the convolutions before them, so
here each norm only adds what its convolution added: the same function, in eval mode. Its prior and
what it imitated of a teacher are not in a bundle.
"""

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper

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
    owned = base.state_dict()
    for name in [name for name in states if name.endswith(_FOLDED)]:
        convolution = name.removesuffix(_FOLDED)
        norm = _norm_after(convolution)
        eps = base.get_submodule(norm).eps
        states[f"{norm}.running_var"] = torch.full_like(states[name], 1 - float(eps))
        # One that is not affine can only subtract.
        affine = f"{norm}.bias" in owned
        states[f"{norm}.running_mean"] = torch.zeros_like(states[name]) if affine else -states[name]
        if affine:
            states[f"{norm}.bias"] = states[name]
            states[f"{norm}.weight"] = torch.ones_like(states[name])
    known = {name: states[name] for name in owned if name in states}
    missing = [n for n in owned if n not in known and not n.startswith(_NOT_RELEASED)]
    missing = [n for n in missing if not n.endswith("num_batches_tracked")]
    wrong = [n for n, state in known.items() if state.shape != owned[n].shape]
    if missing or wrong:
        raise ValueError(f"the bundle's networks are others: {[*missing, *wrong][:4]}")
    base.load_state_dict(known, strict=False)
    return bundle.bundle_id


def _initializers(path: Path) -> dict[str, torch.Tensor]:
    tensors = onnx.load(path).graph.initializer
    arrays = ((t.name.removesuffix(_HALF), numpy_helper.to_array(t)) for t in tensors)
    return {n: torch.from_numpy(a.astype(np.float32)) for n, a in arrays}


def _norm_after(convolution: str) -> str:
    """The norm that reads a convolution, by the names of Analysis and ResidualBlock."""
    parent, _, name = convolution.rpartition(".")
    names = {"stem": "norm", "project": "scale", "conv1": "norm1", "conv2": "norm2", "1": "2"}
    return f"{parent}.{names[name]}"
