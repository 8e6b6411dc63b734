"""Networks as ONNX files: uint8 faces or int32 symbols in, nothing left for the caller to scale."""

import logging
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from mien.trellis import HALF_STEPS
from trainer.models.base import BaseModel
from trainer.models.consistency import Consistency
from trainer.models.enhancement import EnhancementModel

# Initializers larger than this are stored as float16 and cast back when a session loads them:
# half the file, and on this data no figure changes in its fourth digit.
HALVED_ELEMENTS = 256
HALVED = ".half"


class AnalysisGraph(nn.Module):
    """face uint8 (N, 1, 48, 48) → y float32 (N, C, 3, 3)."""

    def __init__(self, base: BaseModel) -> None:
        super().__init__()
        self.analysis = base.analysis

    def forward(self, face: Tensor) -> Tensor:
        """Scale to 0..1 and analyse."""
        y: Tensor = self.analysis(face.float() / 255)
        return y


class Dequantise(nn.Module):
    """symbols int32 (N, C, 3, 3), level int32 (N,) → y_hat float32 (N, C, 3, 3)."""

    steps: Tensor

    def __init__(self, base: BaseModel) -> None:
        super().__init__()
        self.register_buffer("steps", torch.exp(-base.log_gains.detach()))

    def forward(self, symbols: Tensor, level: Tensor) -> Tensor:
        """Divide by the level's gains."""
        y_hat: Tensor = symbols.float() * self.steps[level.long()][:, :, None, None]
        return y_hat


class ClassifierGraph(nn.Module):
    """symbols int32 (N, C, 3, 3), level int32 (N,) → probabilities float32 (N, K)."""

    temperatures: Tensor

    def __init__(self, base: BaseModel, temperatures: Tensor) -> None:
        super().__init__()
        self.dequantise, self.classifier = Dequantise(base), base.classifier
        self.register_buffer("temperatures", temperatures)

    def forward(self, symbols: Tensor, level: Tensor) -> Tensor:
        """Classify; each level's temperature makes probabilities match frequencies."""
        logits = self.classifier(self.dequantise(symbols, level), level.long())
        return torch.softmax(logits / self.temperatures[level.long()][:, None], dim=1)


class EnhancementGraph(nn.Module):
    """face uint8 (N, 1, 48, 48), symbols, level → e float32 (N, E, 1, 1)."""

    def __init__(self, base: BaseModel, enhancement: EnhancementModel) -> None:
        super().__init__()
        self.dequantise, self.analysis = Dequantise(base), enhancement.analysis

    def forward(self, face: Tensor, symbols: Tensor, level: Tensor) -> Tensor:
        """What the base does not say of the face."""
        e: Tensor = self.analysis(face.float() / 255, self.dequantise(symbols, level))
        return e


class SynthesisGraph(nn.Module):
    """symbols, level, enhancement int32 (N, E, 1, 1) in half steps → face uint8 (N, 1, 48, 48)."""

    def __init__(
        self, base: BaseModel, enhancement: EnhancementModel, consistency: Consistency
    ) -> None:
        super().__init__()
        self.dequantise, self.synthesis = Dequantise(base), enhancement.synthesis
        self.consistency = consistency

    def forward(self, symbols: Tensor, level: Tensor, enhancement: Tensor) -> Tensor:
        """Reconstruct, clamp and round; layers that are not there are zeros.

        What the base alone draws is its own, and no picture to be held against it.
        """
        y_hat = self.dequantise(symbols, level)
        faces = self.synthesis(y_hat, enhancement.float() / HALF_STEPS)
        half = self.dequantise.steps[level.long()][:, :, None, None] / 2
        layered = enhancement.abs().amax(dim=(1, 2, 3), keepdim=True) > 0
        faces = torch.where(layered, self.consistency(faces, y_hat, half), faces)
        return torch.round(faces.clamp(0, 1) * 255).to(torch.uint8)


class PixelGraph(nn.Module):
    """face uint8 (N, 1, 48, 48) → probabilities float32 (N, K)."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, face: Tensor) -> Tensor:
        """Scale to 0..1 and classify."""
        return torch.softmax(self.classifier(face.float() / 255), dim=1)


def write_onnx(graph: nn.Module, examples: dict[str, Tensor], target: str, path: Path) -> None:
    """Export with a dynamic batch. examples: an input by each name, in the order of forward."""
    model = _program(graph.eval(), examples, target).model_proto
    _strip(model)
    _halve(model)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _program(graph: nn.Module, examples: dict[str, Tensor], target: str) -> torch.onnx.ONNXProgram:
    # It warns of torchvision, which is not needed, and of its own deprecations.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    batch = torch.export.Dim("n", min=1, max=65536)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.filterwarnings("ignore", "# The axis name", UserWarning)
        program = torch.onnx.export(
            graph,
            tuple(examples.values()),
            input_names=list(examples),
            output_names=[target],
            dynamic_shapes=tuple({0: batch} for _ in examples),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    if program is None:  # only with dynamo=False
        raise RuntimeError("the exporter returned no program")
    return program


def _strip(model: onnx.ModelProto) -> None:
    """Remove what the exporter notes of the machine: source paths and stack traces."""
    del model.metadata_props[:], model.graph.metadata_props[:]
    model.doc_string = model.graph.doc_string = ""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]


def weights_of(model: onnx.ModelProto) -> dict[str, Tensor]:
    """The weights of what write_onnx wrote, float32, by the names that the exporter gave them."""
    arrays = (
        (t.name.removesuffix(HALVED), numpy_helper.to_array(t)) for t in model.graph.initializer
    )
    return {name: torch.from_numpy(array.astype(np.float32)) for name, array in arrays}


def _halve(model: onnx.ModelProto) -> None:
    graph = model.graph
    casts = []
    for tensor in list(graph.initializer):
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size <= HALVED_ELEMENTS:
            continue
        half = numpy_helper.from_array(values.astype(np.float16), tensor.name + HALVED)
        casts.append(helper.make_node("Cast", [half.name], [tensor.name], to=TensorProto.FLOAT))
        graph.initializer.remove(tensor)
        graph.initializer.append(half)
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*casts, *nodes])
