"""Which faces are worth a second look: a linear layer on y that analysis.onnx gets beside its own.

What a device would have to know is where the classifier is unsure, and it has no classifier. A
linear layer that imitates the classifier's answers, read off a latent that is there anyhow, finds
the same faces for 1,700 multiplications.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from mien.holding import quantised
from mien.second_look import DOUBTFUL
from trainer.data.faces import FaceSet
from trainer.runtime import Network

SHARE = 0.15
"""Of validation faces as they are: so many looks more keep the mean cost of a face below 6 kMAC a
pixel. Two looks at all of them gain hardly more."""
STEPS = 60
DECAY = 1e-4


def add_doubt(folder: Path, gains: NDArray[np.float32], train: FaceSet, valid: FaceSet) -> None:
    """Let analysis.onnx in a folder say which faces are doubtful; one that does stays as it is.

    gains: float32 (levels, C); the classifier is asked at the middle one.
    """
    path = folder / "analysis.onnx"
    model = onnx.load(path)
    if DOUBTFUL in [output.name for output in model.graph.output]:
        return
    analysis, classifier = Network(path), Network(folder / "classifier.onnx")
    y = analysis(train.pixels[:])
    middle = len(gains) // 2
    levels = np.full(len(y), middle, np.int32)
    layer = fit_linear(y, classifier(quantised(y, gains[middle]), levels))
    at_most = np.quantile(margins(analysis(valid.pixels[:]), *layer), SHARE)
    _append(model, *layer, float(at_most))
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))


def fit_linear(
    y: NDArray[np.float32], answers: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weights (L, K) and biases (K,) of a softmax of y, (N, …) of L values, that imitates answers.

    answers: float32 (N, K), distributions.
    """
    seen, goal = torch.from_numpy(y).flatten(1), torch.from_numpy(answers)
    weight = torch.zeros(seen.shape[1], goal.shape[1], requires_grad=True)
    bias = torch.zeros(goal.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=STEPS)

    def missed() -> Tensor:
        optimizer.zero_grad()
        logs = torch.log_softmax(seen @ weight + bias, dim=1)
        loss: Tensor = -(goal * logs).sum(dim=1).mean() + DECAY * weight.square().sum()
        torch.autograd.backward(loss)
        return loss

    optimizer.step(missed)  # type: ignore[no-untyped-call]  # as torch has it
    return weight.detach().numpy(), bias.detach().numpy()


def margins(
    y: NDArray[np.float32], weight: NDArray[np.float32], bias: NDArray[np.float32]
) -> NDArray[np.float32]:
    """How much likelier the first answer is than the second, (N,) in 0..1."""
    said = torch.softmax(torch.from_numpy(y.reshape(len(y), -1) @ weight + bias), dim=1)
    first, second = said.topk(2, dim=1).values.unbind(dim=1)
    return (first - second).numpy()


def _append(
    model: onnx.ModelProto,
    weight: NDArray[np.float32],
    bias: NDArray[np.float32],
    at_most: float,
) -> None:
    """The same as `margins`, and whether a margin is less than at_most, as nodes after y."""
    constants: dict[str, NDArray[Any]] = {
        "doubt.weight": weight,
        "doubt.bias": bias,
        "doubt.two": np.array([2], np.int64),
        "doubt.difference": np.array([[1], [-1]], np.float32),
        "doubt.axis": np.array([1], np.int64),
        "doubt.at_most": np.array([at_most], np.float32),
    }
    nodes = [
        helper.make_node("Flatten", ["y"], ["doubt.y"], axis=1),
        helper.make_node("Gemm", ["doubt.y", "doubt.weight", "doubt.bias"], ["doubt.logits"]),
        helper.make_node("Softmax", ["doubt.logits"], ["doubt.said"], axis=1),
        helper.make_node("TopK", ["doubt.said", "doubt.two"], ["doubt.best", "doubt.which"]),
        helper.make_node("MatMul", ["doubt.best", "doubt.difference"], ["doubt.margin"]),
        helper.make_node("Less", ["doubt.margin", "doubt.at_most"], ["doubt.column"]),
        helper.make_node("Squeeze", ["doubt.column", "doubt.axis"], [DOUBTFUL]),
    ]
    model.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in constants.items())
    model.graph.node.extend(nodes)
    batch = model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    model.graph.output.append(helper.make_tensor_value_info(DOUBTFUL, TensorProto.BOOL, [batch]))
