"""Runs a bundle's networks as a service would: ONNX Runtime on the CPU, in batches."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

BATCH_FACES = 256


class Network:
    """One ONNX file, or what one would hold, with one output."""

    def __init__(self, source: Path | bytes) -> None:
        options = ort.SessionOptions()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        model = source if isinstance(source, bytes) else str(source)
        self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._inputs = [node.name for node in self._session.get_inputs()]

    def __call__(self, *batch: NDArray[Any], **named: NDArray[Any]) -> NDArray[Any]:
        """The output for all of the inputs (N, …), in the file's order or by name.

        Computed BATCH_FACES at a time.
        """
        inputs = dict(zip(self._inputs, batch, strict=False)) | named
        faces = len(next(iter(inputs.values())))
        parts = [
            self._session.run(None, {n: a[start : start + BATCH_FACES] for n, a in inputs.items()})[
                0
            ]
            for start in range(0, max(1, faces), BATCH_FACES)
        ]
        return np.concatenate(parts)
