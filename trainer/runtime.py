"""Runs a bundle's networks as a service would: ONNX Runtime on the CPU, in batches."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

BATCH_FACES = 256


class Network:
    """One ONNX file with one input and one output."""

    def __init__(self, path: Path) -> None:
        options = ort.SessionOptions()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def __call__(self, batch: NDArray[Any]) -> NDArray[Any]:
        """The output for all of batch (N, …), computed BATCH_FACES at a time."""
        parts = [
            self._session.run(None, {self._input: batch[start : start + BATCH_FACES]})[0]
            for start in range(0, max(1, len(batch)), BATCH_FACES)
        ]
        return np.concatenate(parts)


def symbols_of(y: NDArray[np.float32]) -> NDArray[np.int32]:
    """Quantise as the edge does: the nearest integer, halves to even."""
    return np.rint(y).astype(np.int32)
