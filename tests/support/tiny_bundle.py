"""A small valid bundle, made in milliseconds: every contract of a real one, nothing learned.

analysis     means of 16×16 pixels, less grey, through a fixed 1×1 convolution to 4 channels
classifier   a fixed linear map of the symbols without their level's gains, and softmax
enhancement  how the mean of each 8×8 pixels differs from grey, coarsely, then more finely
synthesis    each latent position as a square of 16×16 pixels, from its first channel, or of 8×8
             from the enhancement
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto, helper, numpy_helper

from mien.bitstream import bundle_tag
from mien.bundle import ALL_FILES, LAYER_FILES, Bundle, load_bundle, write_manifest
from mien.calibration import Calibration
from mien.integer_cdf import integer_cdf
from mien.manifest import ImageSpec, LatentSpec
from mien.probe import Probe, golden_payloads, probe_levels
from mien.range_coder import TOTAL
from mien.stir import GIVEN
from mien.tables import CdfTables
from mien.trellis import QUANTISERS
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
# Three quality levels, of which the default is the last, and two priors that compete.
GAINS = (0.25, 0.5, 1.0)
SPREADS = (1.0, 0.5)
# Two layers of a channel each.
ENHANCEMENT = (2, 6, 6)
LANDMARKS = ((15.5, 18.0), (32.5, 18.0), (24.0, 27.0), (17.5, 37.0), (30.5, 37.0))
_PROBE_FACES = 28


def make_tiny_bundle(
    folder: Path,
    name: str = "tiny",
    created: str = "2026-01-01",
    *,
    classifier_seed: int = 8,
    table_width: float = 4.0,
    calibration: Calibration | None = None,
    figures: dict[str, Any] | None = None,
    analysis_grey: float = 110.0,
) -> Bundle:
    """Write a bundle into a folder, which is made if need be, and load it with all its files.

    name and created change the bundle id and nothing else. classifier_seed: another one answers
    otherwise, with the same codec. table_width: another one is another codec. calibration: what the
    manifest says of the classifier. figures: other ones. analysis_grey: another one is another
    analysis transform.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for file, model in (
        ("analysis.onnx", _analysis(analysis_grey)),
        ("classifier.onnx", _classifier(classifier_seed)),
        ("enhancement.onnx", _enhancement()),
        ("synthesis.onnx", _synthesis()),
    ):
        (folder / file).write_bytes(model.SerializeToString(deterministic=True))
    tables = tiny_tables(table_width)
    tables.save(folder / "tables.npz")
    for file, of_layer in zip(LAYER_FILES, tiny_layer_tables(), strict=True):
        of_layer.save(folder / file)
    _probe(folder, tables).save(folder / "probe.npz")
    (folder / "MODEL_CARD.md").write_text("# tiny\n\nFor tests; it has learned nothing.\n")
    write_manifest(
        folder,
        name=name,
        created=created,
        expressions=EXPRESSIONS,
        image=ImageSpec(1, 48, 48, LANDMARKS),
        latent=LatentSpec(*SHAPE, len(GAINS) - 1),
        figures=figures or {"accuracy": 0.125, "per_class": {"surprise": 0.5}},
        calibration=calibration,
    )
    return load_bundle(folder, ALL_FILES)


def make_foreign_bundle(folder: Path, *known: Bundle, name: str = "foreign") -> Bundle:
    """Another bundle, whose payloads do not start as those of the known ones do."""
    tags = {bundle_tag(bundle.bundle_id) for bundle in known}
    for trial in range(100):
        # Figures change the bundle id and nothing else.
        bundle = make_tiny_bundle(folder, name=name, figures={"trial": trial})
        if bundle_tag(bundle.bundle_id) not in tags:
            return bundle
    raise AssertionError("a hundred bundles start alike")


def tiny_tables(width: float = 4.0) -> CdfTables:
    """Two-sided geometric tables, wider for the channels that carry more."""
    symbols = np.arange(-12, 13)
    rows = []
    for gain in GAINS:
        for spread in SPREADS:
            for channel in range(SHAPE[0]):
                mass = 2.0 ** (-np.abs(symbols) / (width * gain * spread / (channel + 1)))
                rows += [integer_cdf(np.append(mass / mass.sum(), 1e-3))] * (SHAPE[1] * SHAPE[2])
    return with_contexts(rows, [-12] * len(rows), SHAPE, GAINS, len(SPREADS))


def tiny_layer_tables() -> list[CdfTables]:
    """Of two layers with a channel each; the second quantiser is at zero more often."""
    symbols = np.arange(-8, 9)
    masses = [
        2.0 ** (-np.abs(symbols) / (width * spread)) for width in (3.0, 2.0) for spread in SPREADS
    ]
    rows = [
        integer_cdf(np.append(mass / mass.sum(), 1e-3))
        for mass in masses
        for _ in range(ENHANCEMENT[1] * ENHANCEMENT[2])
    ]
    shape, gains = (1, *ENHANCEMENT[1:]), np.ones((QUANTISERS, 1))
    layer = CdfTables.from_rows(rows, [-8] * len(rows), shape, gains=gains, priors=len(SPREADS))
    return [layer] * ENHANCEMENT[0]


def with_contexts(
    rows: Sequence[ArrayLike],
    offsets: Sequence[int],
    shape: tuple[int, int, int],
    gains: Sequence[float] = (1.0,),
    priors: int = 1,
) -> CdfTables:
    """Tables of these rows for first faces; later ones hold with the symbol before, in -1..1.

    rows: of each level, prior and position. gains: of each level, the same for all channels.
    """
    more, starts, positions = list(rows), list(offsets), int(np.prod(shape))
    contexts = np.zeros((len(gains), len(GIVEN), positions, 3), np.int32)
    for level in range(len(gains)):
        first = level * priors * positions
        for stir, stays in enumerate((0.9, 0.6, 0.3)):
            for position in range(positions):
                row, offset = rows[first + position], offsets[first + position]
                contexts[level, stir, position] = len(more), 3, -1
                mass = np.diff(np.asarray(row, np.float64)) / TOTAL
                for before in (-1, 0, 1):
                    held = np.zeros(len(mass))
                    held[min(max(before - offset, 0), len(mass) - 2)] = stays
                    more.append(integer_cdf((1 - stays) * mass + held))
                    starts.append(offset)
    holds = np.full((len(gains), positions), 45)
    levels = np.repeat(np.array(gains)[:, None], shape[0], axis=1)
    return CdfTables.from_rows(more, starts, shape, contexts, holds, levels, priors)


def tiny_symbols(count: int, seed: int = 0) -> NDArray[np.int32]:
    """Draw symbols as the tables expect them, int32 (count, 4, 3, 3)."""
    random = np.random.Generator(np.random.PCG64(seed))
    widths = np.array([4.0, 2.0, 1.3, 1.0]).reshape(1, 4, 1, 1)
    drawn = random.laplace(0.0, widths, (count, *SHAPE))
    return np.rint(drawn).astype(np.int32)


def _probe(folder: Path, tables: CdfTables) -> Probe:
    faces = schematic_faces(_PROBE_FACES)
    y = _run(folder / "analysis.onnx", face=faces)
    level = probe_levels(len(y), tables)
    symbols = np.rint(y * tables.gains[level][:, :, None, None]).astype(np.int32)
    probabilities = _run(folder / "classifier.onnx", symbols=symbols, level=level)
    return Probe(faces, symbols, probabilities, golden_payloads(tables, symbols))


def _run(path: Path, **inputs: NDArray[np.generic]) -> NDArray[np.float32]:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, inputs)[0], np.float32)


def _analysis(grey: float) -> onnx.ModelProto:
    mixing = np.array([[1.0, 0.5, -0.5, 0.25]], np.float32).reshape(4, 1, 1, 1) / 12
    nodes = [
        helper.make_node("Cast", ["face"], ["grey"], to=TensorProto.FLOAT),
        helper.make_node(
            "AveragePool", ["grey"], ["means"], kernel_shape=[16, 16], strides=[16, 16]
        ),
        helper.make_node("Conv", ["means", "mixing", "bias"], ["y"], kernel_shape=[1, 1]),
    ]
    weights = {"mixing": mixing, "bias": np.float32(-grey) * mixing.reshape(4)}
    return _model(
        nodes, [("face", TensorProto.UINT8, (1, 48, 48))], ("y", TensorProto.FLOAT, SHAPE), weights
    )


def _classifier(seed: int) -> onnx.ModelProto:
    # Every row has mean zero: no expression is favoured by how bright a face is.
    random = np.random.Generator(np.random.PCG64(seed))
    weight = random.normal(0.0, 0.5, (int(np.prod(SHAPE)), len(EXPRESSIONS)))
    weights = {"weight": (weight - weight.mean(axis=1, keepdims=True)).astype(np.float32)}
    nodes = [
        *_without_gains(weights),
        helper.make_node("Flatten", ["floats"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "weight"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    return _model(
        nodes,
        [("symbols", TensorProto.INT32, SHAPE), ("level", TensorProto.INT32, ())],
        ("probabilities", TensorProto.FLOAT, (len(EXPRESSIONS),)),
        weights,
    )


def _without_gains(weights: dict[str, NDArray[np.float32]]) -> list[onnx.NodeProto]:
    weights["steps"] = 1 / np.array(GAINS, np.float32).reshape(-1, 1, 1, 1)
    return [
        helper.make_node("Cast", ["symbols"], ["integers"], to=TensorProto.FLOAT),
        helper.make_node("Gather", ["steps", "level"], ["step"]),
        helper.make_node("Mul", ["integers", "step"], ["floats"]),
    ]


def _enhancement() -> onnx.ModelProto:
    mixing = np.array([1 / 32, 1 / 4], np.float32).reshape(2, 1, 1, 1)
    nodes = [
        helper.make_node("Cast", ["face"], ["grey"], to=TensorProto.FLOAT),
        helper.make_node("AveragePool", ["grey"], ["means"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Conv", ["means", "mixing", "bias"], ["mixed"], kernel_shape=[1, 1]),
        # Given the base: it is there to be read, and adds nothing here.
        *_without_gains(weights := {"mixing": mixing, "bias": -110 * mixing.reshape(2)}),
        helper.make_node("ReduceMean", ["floats"], ["mean"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Mul", ["mean", "nothing"], ["none"]),
        helper.make_node("Add", ["mixed", "none"], ["e"]),
    ]
    weights["nothing"] = np.array(0, np.float32)
    latent = [("symbols", TensorProto.INT32, SHAPE), ("level", TensorProto.INT32, ())]
    return _model(
        nodes,
        [("face", TensorProto.UINT8, (1, 48, 48)), *latent],
        ("e", TensorProto.FLOAT, ENHANCEMENT),
        weights,
    )


def _synthesis() -> onnx.ModelProto:
    squares = np.zeros((SHAPE[0], 1, 16, 16), np.float32)
    squares[0] = 12
    weights = {
        "squares": squares,
        "small_squares": np.stack([np.full((1, 8, 8), step, np.float32) for step in (8, 1)]),
        "grey": np.array([110], np.float32),
        "black": np.array(0, np.float32),
        "white": np.array(255, np.float32),
    }
    nodes = [
        *_without_gains(weights),
        helper.make_node(
            "ConvTranspose",
            ["floats", "squares", "grey"],
            ["picture"],
            kernel_shape=[16, 16],
            strides=[16, 16],
        ),
        helper.make_node("Cast", ["enhancement"], ["finer"], to=TensorProto.FLOAT),
        helper.make_node(
            "ConvTranspose",
            ["finer", "small_squares"],
            ["detail"],
            kernel_shape=[8, 8],
            strides=[8, 8],
        ),
        helper.make_node("Add", ["picture", "detail"], ["detailed"]),
        helper.make_node("Clip", ["detailed", "black", "white"], ["clipped"]),
        helper.make_node("Cast", ["clipped"], ["face"], to=TensorProto.UINT8),
    ]
    return _model(
        nodes,
        [
            ("symbols", TensorProto.INT32, SHAPE),
            ("level", TensorProto.INT32, ()),
            ("enhancement", TensorProto.INT32, ENHANCEMENT),
        ],
        ("face", TensorProto.UINT8, (1, 48, 48)),
        weights,
    )


def _model(
    nodes: list[onnx.NodeProto],
    takes: list[tuple[str, int, tuple[int, ...]]],
    gives: tuple[str, int, tuple[int, ...]],
    weights: dict[str, NDArray[np.float32]],
) -> onnx.ModelProto:
    def value(name: str, kind: int, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, ["N", *shape])

    graph = helper.make_graph(
        nodes,
        "tiny",
        [value(*each) for each in takes],
        [value(*gives)],
        [numpy_helper.from_array(array, key) for key, array in weights.items()],
    )
    model = helper.make_model(
        graph, producer_name="tiny", opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    onnx.checker.check_model(model, full_check=True)
    return model
