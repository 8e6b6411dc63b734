"""Convolutions on small maps as products: the same answers, and nothing unusual touched."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from trainer.models.networks import LatentClassifier
from trainer.onnx_export import ClassifierGraph, _halve, _program, write_onnx
from trainer.small_maps import with_products


def answers(model: onnx.ModelProto, batch: NDArray[np.generic]) -> NDArray[np.float32]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: batch})[0])


@pytest.fixture
def classifier() -> ClassifierGraph:
    torch.manual_seed(0)
    network = LatentClassifier(4, 16, 8, 0.1)
    for module in network.modules():  # as after training: no two channels alike
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -1, 1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    graph = ClassifierGraph(network, 1.3)
    graph.eval()
    return graph


def test_the_classifier_answers_the_same_without_a_convolution(
    classifier: ClassifierGraph, tmp_path: Path
) -> None:
    symbols = np.random.default_rng(0).integers(-5, 6, (7, 4, 3, 3)).astype(np.int32)
    example = torch.zeros(2, 4, 3, 3, dtype=torch.int32)
    convolved = _program(classifier, example, "symbols", "probabilities").model_proto
    _halve(convolved)
    write_onnx(classifier, example, "symbols", "probabilities", tmp_path / "classifier.onnx")
    written = onnx.load(tmp_path / "classifier.onnx")

    assert "Conv" in {node.op_type for node in convolved.graph.node}
    assert "Conv" not in {node.op_type for node in written.graph.node}
    np.testing.assert_allclose(answers(written, symbols), answers(convolved, symbols), atol=1e-6)
    # Each weight is in the file once.
    assert written.ByteSize() < 1.5 * convolved.ByteSize()


def convolution(shape: tuple[int, int], kernel: tuple[int, int], **said: object) -> onnx.ModelProto:
    """One convolution of 3 to 5 channels, of a map of the shape, and a mean over its pixels."""
    weight = np.random.default_rng(1).normal(size=(5, 3, *kernel)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["y"], **said),
        helper.make_node("ReduceMean", ["y", "axes"], ["mean"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "one convolution",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, *shape])],
        [helper.make_tensor_value_info("mean", TensorProto.FLOAT, ["n", 5])],
        [
            numpy_helper.from_array(weight, "w"),
            numpy_helper.from_array(np.arange(5, dtype=np.float32), "b"),
            numpy_helper.from_array(np.array([2, 3], np.int64), "axes"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (2, 5), (4, 4)])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (1, 3), (5, 3)])
def test_any_kernel_on_any_small_map_gives_the_same(
    shape: tuple[int, int], kernel: tuple[int, int]
) -> None:
    model = convolution(shape, kernel, pads=[kernel[0] // 2, kernel[1] // 2] * 2)
    batch = np.random.default_rng(2).normal(size=(6, 3, *shape)).astype(np.float32)
    changed = with_products(model)
    assert "Conv" not in {node.op_type for node in changed.graph.node}
    np.testing.assert_allclose(answers(changed, batch), answers(model, batch), atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((3, 3), {"pads": [1] * 4, "strides": [2, 2]}),
        ((3, 3), {"pads": [0] * 4}),
        ((3, 3), {"auto_pad": "SAME_UPPER"}),
        ((5, 5), {"pads": [1] * 4}),
    ],
)
def test_what_is_unusual_or_large_stays_as_it_is(
    shape: tuple[int, int], said: dict[str, object]
) -> None:
    model = convolution(shape, (3, 3), **said)
    assert with_products(model) == model
