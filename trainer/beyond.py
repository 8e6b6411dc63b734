"""What else is in a bundle's latents than the label: for the model card.

    tomorrow    a fresh head, trained on what is decoded, tells how much the raters agreed; the same
                head on pixels is what to hold it against
    privacy     two augmented photographs, of one face or of two: how often what is decoded finds
                the pair of one face more alike (the area under the ROC curve; a half is chance)

Per quality level, for all layers (by their reconstructions), and for pixels.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mien.bundle import Bundle
from mien.holding import quantised
from trainer.augment import Augmentation, augment
from trainer.data.faces import FaceSet
from trainer.examples import as_float
from trainer.runtime import Network

TRAIN_FACES, PAIRS = 8_000, 1_000
HIDDEN, EPOCHS, BATCH_FACES = 256, 12, 128
FURTHEST = 4.0
Rows = NDArray[np.float32]


def beyond(bundle: Bundle, train: FaceSet, valid: FaceSet) -> dict[str, Any]:
    """Figures by what is looked at: `level_0` …, `all_layers`, `pixels`.

    Each has agreement_correlation, of the head's answers with the share of raters that saw the
    expression most of them saw, and same_face_auc.
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
            "agreement_correlation": _head(*seen, *wanted),
            "same_face_auc": same_face_auc(see(pair[0]), see(pair[1])),
        }
    return figures


def _views(bundle: Bundle) -> dict[str, Any]:
    analysis = Network(bundle.path("analysis.onnx"))
    tables = bundle.tables

    def decoded(level: int) -> Any:
        def see(pixels: NDArray[np.uint8]) -> Rows:
            symbols = quantised(analysis(pixels), tables.gains[level])
            return _rows(symbols / tables.gains[level][:, None, None])

        return see

    def with_layers(pixels: NDArray[np.uint8]) -> Rows:
        level = np.full(len(pixels), bundle.manifest.latent.default_level, np.int32)
        symbols = quantised(analysis(pixels), tables.gains[level])
        e = Network(bundle.path("enhancement.onnx"))(pixels, symbols, level)
        enhancement = np.rint(e).astype(np.int32)
        return _rows(Network(bundle.path("synthesis.onnx"))(symbols, level, enhancement))

    levels = {f"level_{level}": decoded(level) for level in range(tables.levels)}
    return {**levels, "all_layers": with_layers, "pixels": _rows}


def _rows(values: NDArray[Any]) -> Rows:
    return np.asarray(values.reshape(len(values), -1), np.float32)


def _bytes(faces: torch.Tensor) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = (faces * 255).round().byte().numpy()
    return pixels


def _head(train: Rows, valid: Rows, wanted: Rows, truth: Rows) -> float:
    """Train a head of one hidden layer; Pearson's correlation of its answers with the truth."""
    torch.manual_seed(0)
    mean, spread = train.mean(axis=0), train.std(axis=0) + 1e-3

    def seen(rows: Rows) -> torch.Tensor:
        # A symbol that was hardly ever there would else be a thousand spreads away.
        return torch.from_numpy(np.clip((rows - mean) / spread, -FURTHEST, FURTHEST))

    x = seen(train)
    y = torch.from_numpy(wanted).unsqueeze(1)
    head = nn.Sequential(
        nn.Linear(x.shape[1], HIDDEN), nn.ReLU(), nn.Dropout(0.3), nn.Linear(HIDDEN, 1)
    )
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3, weight_decay=1e-2)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(x)).split(BATCH_FACES):  # type: ignore[no-untyped-call]  # torch's own gap
            loss = (head(x[chosen]) - y[chosen]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        said = head.eval()(seen(valid)).squeeze(1).numpy()
    if said.std() < 1e-9 or truth.std() < 1e-9:
        return 0.0
    return float(np.corrcoef(said, truth)[0, 1])


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
