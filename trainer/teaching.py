"""What the teacher says of training faces: asked once, kept, and learnt from in every epoch.

The teacher sees each face as it is and slightly moved, with their mirror images, and answers with
the mean: eight views of one network are worth about a point of accuracy. A student sees the face
augmented and is to say the same of it (a consistent answer to a harder question; Xie et al., 2020,
"Noisy Student", arXiv:1911.04252).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mien.npz import read_npz, write_npz
from trainer.data.faces import EXPRESSIONS, FaceSet
from trainer.examples import as_float
from trainer.models.resnet import ResNet18

# Zoom, and shifts right and down as fractions of half a side, of each view beside its mirror image.
VIEWS = ((1.0, 0.0, 0.0), (1.05, 0.0, 0.0), (1.0, 0.04, 0.03), (1.0, -0.04, -0.03))
BATCH_FACES = 256
CLASSES = len(EXPRESSIONS)
_LEAST_SPREAD = 1e-3


@dataclass(frozen=True)
class Taught:
    """Training faces with targets: an Examples whose votes are wider.

    votes: float32 (N, CLASSES + CLASSES + F): the votes, the teacher's probabilities, and its
        features, each of mean 0 and spread 1 over the faces.
    """

    pixels: Any
    votes: NDArray[np.float32]
    majority: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.votes)

    @property
    def features(self) -> int:
        """How many features the teacher has."""
        return self.votes.shape[1] - 2 * CLASSES


def taught(faces: FaceSet, teacher: ResNet18, kept: Path) -> Taught:
    """Ask the teacher about all faces, or take what it said from `kept`, an .npz file."""
    if not kept.is_file():
        probabilities, features = ask(teacher, faces.pixels[:])
        kept.write_bytes(write_npz({"probabilities": probabilities, "features": features}))
    arrays = read_npz(
        kept.read_bytes(), {"probabilities": ("<f4", 2), "features": ("<f4", 2)}, 1 << 30
    )
    seen = arrays["features"]
    spread = seen.std(axis=0) + _LEAST_SPREAD
    targets = [faces.votes, arrays["probabilities"], (seen - seen.mean(axis=0)) / spread]
    return Taught(faces.pixels, np.concatenate(targets, axis=1).astype(np.float32), faces.majority)


@torch.no_grad()
def ask(
    teacher: ResNet18, pixels: NDArray[np.uint8]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The teacher's probabilities (N, K) and features (N, F) of faces, means over all views."""
    teacher.eval()
    probabilities, features = [], []
    for start in range(0, len(pixels), BATCH_FACES):
        logits, pooled = [], []
        for view in views(as_float(pixels[start : start + BATCH_FACES])):
            made = teacher.features(view)
            logits.append(F.log_softmax(teacher.classify(made), dim=1))
            pooled.append(made[-1].mean(dim=(2, 3)))
        probabilities.append(torch.softmax(torch.stack(logits).mean(dim=0), dim=1).numpy())
        features.append(torch.stack(pooled).mean(dim=0).numpy())
    return np.concatenate(probabilities), np.concatenate(features)


def views(faces: Tensor) -> Iterator[Tensor]:
    """Each of VIEWS and its mirror image, float (N, 1, H, W), channels last."""
    for zoom, right, down in VIEWS:
        theta = torch.tensor([[zoom, 0.0, right], [0.0, zoom, down]]).expand(len(faces), 2, 3)
        grid = F.affine_grid(theta, list(faces.shape), align_corners=False)
        moved = F.grid_sample(faces, grid, padding_mode="reflection", align_corners=False)
        for view in (moved, moved.flip(3)):
            yield view.contiguous(memory_format=torch.channels_last)
