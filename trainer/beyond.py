"""What else is in a bundle's latents than the label: for the model card.

    tomorrow    a fresh head, trained on what is decoded, for two tasks that the codec was not
                trained for: how much the raters agreed, and FER2013's own labels, one annotator's,
                in seven classes; the same head on pixels, and on the features that the pixel
                classifier has of them, is what to hold it against
    privacy     two augmented photographs, of one face or of two: how often what is decoded finds
                the pair of one face more alike (the area under the ROC curve; a half is chance)

Per quality level, for all layers (by their reconstructions), for pixels and for features.
"""

from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper

from mien.bundle import Bundle
from mien.holding import quantised
from trainer.augment import Augmentation, augment
from trainer.data.faces import FaceSet
from trainer.evaluate import PIXEL_FILE
from trainer.examples import as_float
from trainer.fresh_head import Rows, accuracy, correlation
from trainer.runtime import AnalysisNetwork, Network

TRAIN_FACES, PAIRS = 8_000, 1_000


def beyond(bundle: Bundle, train: FaceSet, valid: FaceSet) -> dict[str, Any]:
    """Figures by what is looked at: `level_0` …, `all_layers`, `pixels`, `pixel_features`.

    Each has agreement_correlation, of the head's answers with the share of raters that saw the
    expression most of them saw, fer2013_accuracy where the faces have such labels, and
    same_face_auc.
    """
    train_pixels = train.pixels[: min(len(train), TRAIN_FACES)]
    wanted = train.votes[: len(train_pixels)].max(axis=1), valid.votes.max(axis=1)
    generator = torch.Generator().manual_seed(0)
    photographs = as_float(valid.pixels[: min(len(valid), PAIRS)])
    pair = [_bytes(augment(photographs, Augmentation().scaled(0.5), generator)) for _ in range(2)]
    figures = {}
    for name, see in _views(bundle).items():
        seen = see(train_pixels), see(valid.pixels[:])
        figures[name] = {
            "agreement_correlation": correlation(*seen, *wanted),
            **_fer2013(seen, train, valid),
            "same_face_auc": same_face_auc(see(pair[0]), see(pair[1])),
        }
    return figures


def _fer2013(seen: tuple[Rows, Rows], train: FaceSet, valid: FaceSet) -> dict[str, float]:
    if train.original is None or valid.original is None:
        return {}
    wanted, truth = train.original[: len(seen[0])], valid.original
    learnt, asked = wanted >= 0, truth >= 0
    if not learnt.any() or not asked.any():
        return {}
    said = accuracy(seen[0][learnt], seen[1][asked], wanted[learnt], truth[asked])
    return {"fer2013_accuracy": said}


def _views(bundle: Bundle) -> dict[str, Any]:
    analysis = AnalysisNetwork(bundle.path("analysis.onnx"))
    tables, layers = bundle.tables, bundle.layers()

    def decoded(level: int) -> Any:
        def see(pixels: NDArray[np.uint8]) -> Rows:
            symbols = quantised(analysis(pixels), tables.gains[level])
            return _rows(symbols / tables.gains[level][:, None, None])

        return see

    def with_layers(pixels: NDArray[np.uint8]) -> Rows:
        level = np.full(len(pixels), bundle.manifest.latent.default_level, np.int32)
        symbols = quantised(analysis(pixels), tables.gains[level])
        e = Network(bundle.path("enhancement.onnx"))(pixels, symbols, level)
        enhancement = layers.values(layers.chosen(e))
        return _rows(Network(bundle.path("synthesis.onnx"))(symbols, level, enhancement))

    levels = {f"level_{level}": decoded(level) for level in range(tables.levels)}
    features = _pixel_features(bundle.read(PIXEL_FILE))
    return {**levels, "all_layers": with_layers, "pixels": _rows, "pixel_features": features}


def _pixel_features(pixel: bytes) -> Any:
    """What the pixel classifier's last layer reads."""
    model = onnx.load_from_string(pixel)
    last = [node for node in model.graph.node if node.op_type in ("Gemm", "MatMul")][-1]
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info(last.input[0], TensorProto.FLOAT, None))
    network = Network(model.SerializeToString())
    return lambda pixels: _rows(network(pixels))


def _rows(values: NDArray[Any]) -> Rows:
    return np.asarray(values.reshape(len(values), -1), np.float32)


def _bytes(faces: torch.Tensor) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = (faces * 255).round().byte().numpy()
    return pixels


def same_face_auc(first: Rows, second: Rows) -> float:
    """How often row i of first is more like row i of second than like another, 0 to 1.

    Alike by the cosine after each column has mean 0 and spread 1 over all rows.
    """
    every = np.concatenate([first, second])
    mean, spread = every.mean(axis=0), every.std(axis=0) + 1e-3
    a, b = (_unit((rows - mean) / spread) for rows in (first, second))
    alike = a @ b.T
    own = np.diag(alike)[:, None]
    others = ~np.eye(len(a), dtype=bool)
    wins = (own > alike) + 0.5 * (own == alike)
    return float(wins[others].mean())


def _unit(rows: Rows) -> Rows:
    return np.asarray(rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-9), np.float32)
