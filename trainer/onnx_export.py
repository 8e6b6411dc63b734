"""Networks as ONNX files: uint8 faces or int32 symbols in, nothing left for the caller to scale."""

import logging
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from trainer.models.networks import Analysis, LatentClassifier, PixelClassifier, Synthesis
from trainer.small_maps import with_products

# Initializers larger than this are stored as float16 and cast back when a session loads them:
# half the file, and on this data no figure changes in its fourth digit.
HALVED_ELEMENTS = 256


class AnalysisGraph(nn.Module):
    """face uint8 (N, 1, 48, 48) → y float32 (N, C, 3, 3)."""

    def __init__(self, analysis: Analysis) -> None:
        super().__init__()
        self.analysis = analysis

    def forward(self, face: Tensor) -> Tensor:
        """Scale to 0..1 and analyse."""
        y: Tensor = self.analysis(face.float() / 255)
        return y


class ClassifierGraph(nn.Module):
    """symbols int32 (N, C, 3, 3) → probabilities float32 (N, K)."""

    def __init__(self, classifier: LatentClassifier, temperature: float) -> None:
        super().__init__()
        self.classifier, self.temperature = classifier, temperature

    def forward(self, symbols: Tensor) -> Tensor:
        """Classify; the temperature makes probabilities match frequencies."""
        return torch.softmax(self.classifier(symbols.float()) / self.temperature, dim=1)


class PixelGraph(nn.Module):
    """face uint8 (N, 1, 48, 48) → probabilities float32 (N, K)."""

    def __init__(self, classifier: PixelClassifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, face: Tensor) -> Tensor:
        """Scale to 0..1 and classify."""
        return torch.softmax(self.classifier(face.float() / 255), dim=1)


class SynthesisGraph(nn.Module):
    """symbols int32 (N, C, 3, 3) → face uint8 (N, 1, 48, 48)."""

    def __init__(self, synthesis: Synthesis) -> None:
        super().__init__()
        self.synthesis = synthesis

    def forward(self, symbols: Tensor) -> Tensor:
        """Reconstruct, clamp and round."""
        faces = self.synthesis(symbols.float()).clamp(0, 1) * 255
        return torch.round(faces).to(torch.uint8)


def write_onnx(graph: nn.Module, example: Tensor, source: str, target: str, path: Path) -> None:
    """Export with a dynamic batch; input and output are named source and target."""
    model = _program(graph.eval(), example, source, target).model_proto
    _strip(model)
    _halve(model)
    model = with_products(model)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _program(graph: nn.Module, example: Tensor, source: str, target: str) -> torch.onnx.ONNXProgram:
    # It warns of torchvision, which is not needed, and of its own deprecations.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        program = torch.onnx.export(
            graph,
            (example,),
            input_names=[source],
            output_names=[target],
            dynamic_shapes=({0: torch.export.Dim("n", min=1, max=65536)},),
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


def _halve(model: onnx.ModelProto) -> None:
    graph = model.graph
    casts = []
    for tensor in list(graph.initializer):
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size <= HALVED_ELEMENTS:
            continue
        half = numpy_helper.from_array(values.astype(np.float16), tensor.name + ".half")
        casts.append(helper.make_node("Cast", [half.name], [tensor.name], to=TensorProto.FLOAT))
        graph.initializer.remove(tensor)
        graph.initializer.append(half)
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*casts, *nodes])
