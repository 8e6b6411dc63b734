"""A small valid bundle, made in milliseconds: every contract of a real one, nothing learned.

analysis     means of 16×16 pixels, less grey, through a fixed 1×1 convolution to 4 channels
classifier   a fixed linear map of the symbols, and softmax
synthesis    each latent position as a square of 16×16 pixels, from its first channel
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto, helper, numpy_helper

from mien.bundle import ALL_FILES, Bundle, load_bundle, write_manifest
from mien.calibration import Calibration
from mien.manifest import ImageSpec, LatentSpec
from mien.probe import Probe, golden_payloads
from mien.range_coder import TOTAL
from mien.stir import GIVEN
from mien.tables import CdfTables, integer_cdf
from trainer.schematic import schematic_faces

EXPRESSIONS = (
    "neutral",
    "happiness",
    "surprise",
    "sadness",
    "anger",
    "disgust",
    "fear",
    "contempt",
)
SHAPE = (4, 3, 3)
LANDMARKS = ((15.5, 18.0), (32.5, 18.0), (24.0, 27.0), (17.5, 37.0), (30.5, 37.0))
_PROBE_FACES = 12


def make_tiny_bundle(
    folder: Path,
    name: str = "tiny",
    created: str = "2026-01-01",
    *,
    classifier_seed: int = 8,
    table_width: float = 4.0,
    calibration: Calibration | None = None,
) -> Bundle:
    """Write a bundle into a folder, which is made if need be, and load it with all its files.

    name and created change the bundle id and nothing else. classifier_seed: another one answers
    otherwise, with the same codec. table_width: another one is another codec. calibration: what the
    manifest says of the classifier.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for file, model in (
        ("analysis.onnx", _analysis()),
        ("classifier.onnx", _classifier(classifier_seed)),
        ("synthesis.onnx", _synthesis()),
    ):
        (folder / file).write_bytes(model.SerializeToString(deterministic=True))
    tables = tiny_tables(table_width)
    tables.save(folder / "tables.npz")
    _probe(folder, tables).save(folder / "probe.npz")
    (folder / "MODEL_CARD.md").write_text("# tiny\n\nFor tests; it has learned nothing.\n")
    write_manifest(
        folder,
        name=name,
        created=created,
        expressions=EXPRESSIONS,
        image=ImageSpec(1, 48, 48, LANDMARKS),
        latent=LatentSpec(*SHAPE),
        figures={"accuracy": 0.125, "per_class": {"surprise": 0.5}},
        calibration=calibration,
    )
    return load_bundle(folder, ALL_FILES)


def tiny_tables(width: float = 4.0) -> CdfTables:
    """Two-sided geometric tables, wider for the channels that carry more."""
    symbols = np.arange(-12, 13)
    rows = []
    for channel in range(SHAPE[0]):
        mass = 2.0 ** (-np.abs(symbols) / (width / (channel + 1)))
        rows += [integer_cdf(np.append(mass / mass.sum(), 1e-3))] * (SHAPE[1] * SHAPE[2])
    return with_contexts(rows, [-12] * len(rows), SHAPE)


def with_contexts(
    rows: Sequence[ArrayLike], offsets: Sequence[int], shape: tuple[int, int, int]
) -> CdfTables:
    """Tables of these rows for first faces; later ones hold with the symbol before, in -1..1."""
    more, starts, positions = list(rows), list(offsets), len(rows)
    contexts = np.zeros((len(GIVEN), positions, 3), np.int32)
    for level, stays in enumerate((0.9, 0.6, 0.3)):
        for position, (row, offset) in enumerate(zip(rows, offsets, strict=True)):
            contexts[level, position] = len(more), 3, -1
            mass = np.diff(np.asarray(row, np.float64)) / TOTAL
            for before in (-1, 0, 1):
                held = np.zeros(len(mass))
                held[min(max(before - offset, 0), len(mass) - 2)] = stays
                more.append(integer_cdf((1 - stays) * mass + held))
                starts.append(offset)
    return CdfTables.from_rows(more, starts, shape, contexts, np.full(positions, 45))


def tiny_symbols(count: int, seed: int = 0) -> NDArray[np.int32]:
    """Draw symbols as the tables expect them, int32 (count, 4, 3, 3)."""
    random = np.random.Generator(np.random.PCG64(seed))
    widths = np.array([4.0, 2.0, 1.3, 1.0]).reshape(1, 4, 1, 1)
    drawn = random.laplace(0.0, widths, (count, *SHAPE))
    return np.rint(drawn).astype(np.int32)


def _probe(folder: Path, tables: CdfTables) -> Probe:
    faces = schematic_faces(_PROBE_FACES)
    y = _run(folder / "analysis.onnx", "face", faces)
    symbols = np.rint(y).astype(np.int32)
    probabilities = _run(folder / "classifier.onnx", "symbols", symbols)
    return Probe(faces, symbols, probabilities, golden_payloads(tables, symbols))


def _run(path: Path, name: str, batch: NDArray[np.generic]) -> NDArray[np.float32]:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {name: batch})[0], np.float32)


def _analysis() -> onnx.ModelProto:
    mixing = np.array([[1.0, 0.5, -0.5, 0.25]], np.float32).reshape(4, 1, 1, 1) / 12
    nodes = [
        helper.make_node("Cast", ["face"], ["grey"], to=TensorProto.FLOAT),
        helper.make_node(
            "AveragePool", ["grey"], ["means"], kernel_shape=[16, 16], strides=[16, 16]
        ),
        helper.make_node("Conv", ["means", "mixing", "bias"], ["y"], kernel_shape=[1, 1]),
    ]
    weights = {"mixing": mixing, "bias": -110 * mixing.reshape(4)}
    return _model(
        nodes, ("face", TensorProto.UINT8, (1, 48, 48)), ("y", TensorProto.FLOAT, SHAPE), weights
    )


def _classifier(seed: int) -> onnx.ModelProto:
    # Every row has mean zero: no expression is favoured by how bright a face is.
    random = np.random.Generator(np.random.PCG64(seed))
    weight = random.normal(0.0, 0.5, (int(np.prod(SHAPE)), len(EXPRESSIONS)))
    weights = {"weight": (weight - weight.mean(axis=1, keepdims=True)).astype(np.float32)}
    nodes = [
        helper.make_node("Cast", ["symbols"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["floats"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "weight"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    return _model(
        nodes,
        ("symbols", TensorProto.INT32, SHAPE),
        ("probabilities", TensorProto.FLOAT, (len(EXPRESSIONS),)),
        weights,
    )


def _synthesis() -> onnx.ModelProto:
    squares = np.zeros((SHAPE[0], 1, 16, 16), np.float32)
    squares[0] = 12
    weights = {
        "squares": squares,
        "grey": np.array([110], np.float32),
        "black": np.array(0, np.float32),
        "white": np.array(255, np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["symbols"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node(
            "ConvTranspose",
            ["floats", "squares", "grey"],
            ["picture"],
            kernel_shape=[16, 16],
            strides=[16, 16],
        ),
        helper.make_node("Clip", ["picture", "black", "white"], ["clipped"]),
        helper.make_node("Cast", ["clipped"], ["face"], to=TensorProto.UINT8),
    ]
    return _model(
        nodes,
        ("symbols", TensorProto.INT32, SHAPE),
        ("face", TensorProto.UINT8, (1, 48, 48)),
        weights,
    )


def _model(
    nodes: list[onnx.NodeProto],
    takes: tuple[str, int, tuple[int, ...]],
    gives: tuple[str, int, tuple[int, ...]],
    weights: dict[str, NDArray[np.float32]],
) -> onnx.ModelProto:
    def value(name: str, kind: int, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, ["N", *shape])

    graph = helper.make_graph(
        nodes,
        "tiny",
        [value(*takes)],
        [value(*gives)],
        [numpy_helper.from_array(array, key) for key, array in weights.items()],
    )
    model = helper.make_model(
        graph, producer_name="tiny", opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    onnx.checker.check_model(model, full_check=True)
    return model
