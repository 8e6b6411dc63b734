"""Convolutions on a map of a few pixels as matrix products over the taps that meet the map.

Of the 81 taps that a padded 3×3 convolution has on a map of 3×3, 32 meet nothing but padding, and a
product of a batch with a matrix runs nearer to what a processor can do than a convolution of nine
pixels. So a map becomes one matrix (N, C) for each of its pixels:

    pixel of the output = concatenation of its neighbours (N, taps·C) · taps of the weight

It computes the same, in another order of summing. The file holds each weight once, the runtime cuts
the taps out of it when the session loads, which takes 49 / 9 of its memory for a map of 3×3. The
classifier of bundles/ferplus-48 took 175 µs a face instead of 300 in batches of 256, and more in
batches below ten, where the weights are read for few faces.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

# On larger maps little of a convolution meets padding, and the products get small.
MOST_PIXELS = 16


def with_products(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network, its convolutions as products; as it is where it has anything unusual.

    For a network whose one input is a map (N, C, H, W) of at most MOST_PIXELS, which goes through
    convolutions of stride 1 that keep its size, Relu, Add and, in the end, a mean over all pixels.
    """
    shape = [axis.dim_value for axis in model.graph.input[0].type.tensor_type.shape.dim]
    if len(shape) != 4 or not 1 <= shape[2] * shape[3] <= MOST_PIXELS:
        return model
    try:
        nodes, constants = _Rewriter(model.graph, (shape[2], shape[3])).rewritten()
    except _UnusualError:
        return model
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    graph.initializer.extend(c for c in [*model.graph.initializer, *constants] if c.name in used)
    return changed


class _UnusualError(Exception):
    """The network has something that this module does not know."""


class _Rewriter:
    def __init__(self, graph: onnx.GraphProto, size: tuple[int, int]) -> None:
        self._graph = graph
        self._height, self._width = size
        self._weights = {c.name: numpy_helper.to_array(c) for c in graph.initializer}
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        # A map's name → the names of its pixels' matrices, row after row.
        self._pixels: dict[str, list[str]] = {}
        self._maps = {graph.input[0].name}

    def rewritten(self) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
        for node in self._graph.node:
            if not self._maps.isdisjoint(node.input):
                self._rewrite(node)
            else:
                self._nodes.append(node)
        return self._nodes, self._constants

    def _rewrite(self, node: onnx.NodeProto) -> None:
        match node.op_type:
            case "Cast" if node.input[0] not in self._pixels:
                self._nodes.append(node)
                self._maps.add(node.output[0])
            case "Conv":
                self._convolve(node)
            case "Relu" | "Add" if all(name in self._pixels for name in node.input):
                self._each(node)
            case "ReduceMean" if self._is_over_all(node):
                pixels = self._of(node.input[0])
                self._nodes.append(helper.make_node("Mean", pixels, [node.output[0]]))
            case _:
                raise _UnusualError(node.op_type)

    def _of(self, name: str) -> list[str]:
        """The matrices of a map, which is cut into them where it has none yet."""
        if name not in self._pixels:
            count = self._height * self._width
            columns = [f"{name}.column{pixel}" for pixel in range(count)]
            self._pixels[name] = [f"{name}.pixel{pixel}" for pixel in range(count)]
            flat = self._constant(f"{name}.flat", np.array([0, 0, count], np.int64))
            last = self._constant(f"{name}.last", np.array([2], np.int64))
            self._add("Reshape", [name, flat], [f"{name}.columns"])
            self._add("Split", [f"{name}.columns"], columns, axis=2, num_outputs=count)
            for column, pixel in zip(columns, self._pixels[name], strict=True):
                self._add("Squeeze", [column, last], [pixel])
        return self._pixels[name]

    def _convolve(self, node: onnx.NodeProto) -> None:
        source, weight, *bias = node.input
        kernel = self._kernel(node)
        channels_out, channels_in = self._shape(weight)[:2]
        pixels, target = self._of(source), node.output[0]
        taps = f"{target}.taps"  # (kernel's pixels, channels in, channels out)
        shape = np.array([channels_out, channels_in, kernel[0] * kernel[1]], np.int64)
        self._add("Reshape", [weight, self._constant(f"{taps}.shape", shape)], [f"{taps}.flat"])
        self._add("Transpose", [f"{taps}.flat"], [taps], perm=[2, 1, 0])
        rows = self._constant(f"{target}.rows", np.array([-1, channels_out], np.int64))
        outputs = []
        for pixel in range(len(pixels)):
            met = self._met(pixel, kernel)
            name = f"{target}.pixel{pixel}"
            wanted = self._constant(f"{name}.taps", np.array([tap for tap, _ in met], np.int64))
            self._add("Gather", [taps, wanted], [f"{name}.cut"], axis=0)
            self._add("Reshape", [f"{name}.cut", rows], [f"{name}.matrix"])
            self._add("Concat", [pixels[at] for _, at in met], [f"{name}.met"], axis=1)
            self._add("Gemm", [f"{name}.met", f"{name}.matrix", *bias], [name])
            outputs.append(name)
        self._have(target, outputs)

    def _kernel(self, node: onnx.NodeProto) -> tuple[int, int]:
        """The kernel's size. Raises _UnusualError unless the map keeps its size, tap for tap."""
        said = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        height, width = self._shape(node.input[1])[2:]
        plain = {"group": 1, "strides": [1, 1], "dilations": [1, 1], "auto_pad": b"NOTSET"}
        same = [height // 2, width // 2] * 2
        odd = height % 2 == width % 2 == 1
        if not odd or list(said.get("pads", [0] * 4)) != same:
            raise _UnusualError("a convolution that changes the map's size")
        if any(said.get(name, value) != value for name, value in plain.items()):
            raise _UnusualError("a convolution with strides, dilations or groups")
        return height, width

    def _shape(self, weight: str) -> Sequence[int]:
        """The shape of a weight, which may be stored in half precision and cast."""
        casts = {n.output[0]: n.input[0] for n in self._graph.node if n.op_type == "Cast"}
        name = casts.get(weight, weight)
        if name not in self._weights:
            raise _UnusualError(f"{weight} is computed")
        return self._weights[name].shape

    def _met(self, pixel: int, kernel: tuple[int, int]) -> list[tuple[int, int]]:
        """(tap, pixel of the map that it meets) of a pixel of the output."""
        row, column = divmod(pixel, self._width)
        met = []
        for tap in range(kernel[0] * kernel[1]):
            down, right = divmod(tap, kernel[1])
            at_row, at_column = row + down - kernel[0] // 2, column + right - kernel[1] // 2
            if 0 <= at_row < self._height and 0 <= at_column < self._width:
                met.append((tap, at_row * self._width + at_column))
        return met

    def _each(self, node: onnx.NodeProto) -> None:
        sources = [self._pixels[name] for name in node.input]
        outputs = [f"{node.output[0]}.pixel{pixel}" for pixel in range(len(sources[0]))]
        for *pixels, output in zip(*sources, outputs, strict=True):
            self._add(node.op_type, list(pixels), [output])
        self._have(node.output[0], outputs)

    def _is_over_all(self, node: onnx.NodeProto) -> bool:
        said = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        axes = said.get("axes")
        if axes is None and len(node.input) > 1:
            axes = self._weights.get(node.input[1], np.array([])).tolist()
        return said.get("keepdims", 1) == 0 and sorted(axis % 4 for axis in axes or ()) == [2, 3]

    def _have(self, name: str, pixels: list[str]) -> None:
        self._pixels[name] = pixels
        self._maps.add(name)

    def _add(self, kind: str, inputs: list[str], outputs: list[str], **said: Any) -> None:
        self._nodes.append(helper.make_node(kind, inputs, outputs, **said))

    def _constant(self, name: str, values: NDArray[np.int64]) -> str:
        self._constants.append(numpy_helper.from_array(values, name))
        return name
