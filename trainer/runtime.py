"""Runs a bundle's networks as a service would: ONNX Runtime on the CPU, in batches."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from mien.second_look import DOUBTFUL, looked_at

BATCH_FACES = 256


class Network:
    """One ONNX file, or what one would hold, with one output, or one that matters."""

    def __init__(self, source: Path | bytes) -> None:
        options = ort.SessionOptions()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        model = source if isinstance(source, bytes) else str(source)
        self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._inputs = [node.name for node in self._session.get_inputs()]
        self.names = [node.name for node in self._session.get_outputs()]

    def __call__(self, *batch: NDArray[Any], **named: NDArray[Any]) -> NDArray[Any]:
        """The first output for all of the inputs (N, …), in the file's order or by name.

        Computed BATCH_FACES at a time.
        """
        return self.outputs(*batch, **named)[0]

    def outputs(self, *batch: NDArray[Any], **named: NDArray[Any]) -> list[NDArray[Any]]:
        """All outputs, in the file's order."""
        inputs = dict(zip(self._inputs, batch, strict=False)) | named
        faces = len(next(iter(inputs.values())))
        parts = [
            self._session.run(None, {n: a[start : start + BATCH_FACES] for n, a in inputs.items()})
            for start in range(0, max(1, faces), BATCH_FACES)
        ]
        return [np.concatenate(each) for each in zip(*parts, strict=True)]


class AnalysisNetwork:
    """analysis.onnx as devices use it."""

    def __init__(self, path: Path) -> None:
        self._network = Network(path)

    def __call__(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """y, float32 (N, C, h, w), of faces, uint8 (N, 1, H, W): after two looks where in doubt."""
        return looked_at(self._once, faces)[0]

    def _once(self, faces: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any] | None]:
        outputs = dict(zip(self._network.names, self._network.outputs(faces), strict=True))
        return outputs["y"], outputs.get(DOUBTFUL)
