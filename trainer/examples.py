"""What is learnt from and judged on, and how it becomes tensors."""

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

EVALUATION_FACES = 256


class Examples(Protocol):
    """Pictures that an array of indices selects, and their labels."""

    @property
    def pixels(self) -> Any:
        """uint8 (N, C, H, W)."""

    @property
    def votes(self) -> Any:
        """float32 (N, K): a distribution each; K is 0 for pictures without labels."""

    @property
    def majority(self) -> Any:
        """int64 (N,): the most voted; whatever for pictures without labels."""

    def __len__(self) -> int: ...


def as_float(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> Tensor:
    """uint8 (N, C, H, W) as float32 in 0..1, channels last."""
    faces = torch.from_numpy(pixels).float() / 255
    return faces.contiguous(memory_format=torch.channels_last)


def in_parts(examples: Examples, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Faces, float32 in 0..1, and their majority, on a device: 256 at a time.

    No more are in memory as floats, nor read if they are still in their files.
    """
    majority = torch.from_numpy(examples.majority)
    for start in range(0, len(examples), EVALUATION_FACES):
        chosen = np.arange(start, min(start + EVALUATION_FACES, len(examples)))
        yield as_float(examples.pixels[chosen]).to(device), majority[chosen].to(device)


def device_of(network: torch.nn.Module) -> torch.device:
    """Where a network's parameters are."""
    return next(network.parameters()).device
