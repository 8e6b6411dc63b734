"""Trained networks on disk: the loop's checkpoints, and what is released of them.

A checkpoint holds everything that training needs to go on. A released network is the averaged
weights alone, in half precision where that keeps them, as an .npz file that holds no pickle.
"""

import shutil
from pathlib import Path

import numpy as np
import torch

from mien.npz import write_npz

RELEASED = ".npz"
# What half precision rounds a network's weights by, relative to the largest.
HALF_ROUNDING = 1e-3


def averaged_states(checkpoint: Path) -> dict[str, torch.Tensor]:
    """The averaged weights of a checkpoint; of the released network beside it where it is gone.

    Raises FileNotFoundError where neither is there.
    """
    if checkpoint.is_file():
        state = torch.load(checkpoint, weights_only=True, map_location="cpu")["averaged"]
        prefix = "module."
        return {n.removeprefix(prefix): s for n, s in state.items() if n.startswith(prefix)}
    released = checkpoint.with_suffix(RELEASED)
    if not released.is_file():
        raise FileNotFoundError(f"{checkpoint} is not there: the stage that makes it comes first")
    with np.load(released, allow_pickle=False) as arrays:
        states = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    return {n: s.float() if s.is_floating_point() else s for n, s in states.items()}


def release(run: Path, folder: Path) -> list[Path]:
    """Write every finished stage's network of a run, and its figures, to folder.

    The folder can then be another run's: what is in it counts as done. Returns what was written.
    Raises FileNotFoundError where no stage is finished.
    """
    written = []
    for checkpoint in sorted(run.rglob("*.pt")):
        figures = checkpoint.with_suffix(".json")
        if not figures.is_file():
            continue
        to = folder / figures.relative_to(run)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(figures, to)
        states = averaged_states(checkpoint).items()
        arrays = {n: _smaller(s).numpy() for n, s in states}
        network = to.with_suffix(RELEASED)
        network.write_bytes(write_npz(arrays))
        written.append(network)
    if not written:
        raise FileNotFoundError(f"{run} holds no finished stage")
    return written


def _smaller(state: torch.Tensor) -> torch.Tensor:
    """In half precision, unless it would not be the same any more.

    Constants are states as well: CompressAI bounds likelihoods by 1e-9, which is 0 as a half, and a
    likelihood of 0 costs infinitely many bits.
    """
    if not state.is_floating_point() or not state.numel():
        return state
    half = state.half()
    same = (half.float() - state).abs().max() <= HALF_ROUNDING * state.abs().max()
    return half if bool(same) else state
