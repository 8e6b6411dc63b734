"""A small head trained afresh on what is decoded: what another task could still learn from it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

HIDDEN, EPOCHS, BATCH_FACES = 256, 12, 128
FURTHEST = 4.0
Rows = NDArray[np.float32]


def correlation(train: Rows, valid: Rows, wanted: Rows, truth: Rows) -> float:
    """Pearson's correlation of a head's answers with the truth, (M,), wanted being of train."""
    y = torch.from_numpy(wanted).unsqueeze(1)
    said = _answers(train, valid, 1, lambda out, chosen: (out - y[chosen]).square().mean())[:, 0]
    if said.std() < 1e-9 or truth.std() < 1e-9:
        return 0.0
    return float(np.corrcoef(said, truth)[0, 1])


def accuracy(
    train: Rows, valid: Rows, wanted: NDArray[np.int64], truth: NDArray[np.int64]
) -> float:
    """How often a head finds the class of truth (M,), having learnt from those of train."""
    y = torch.from_numpy(wanted)
    classes = int(wanted.max()) + 1
    said = _answers(train, valid, classes, lambda out, chosen: F.cross_entropy(out, y[chosen]))
    return float((said.argmax(axis=1) == truth).mean())


def _answers(
    train: Rows, valid: Rows, outputs: int, loss: Callable[[Tensor, Tensor], Tensor]
) -> NDArray[Any]:
    """Of a head of one hidden layer, for valid (M, D), after it was trained on train (N, D)."""
    torch.manual_seed(0)
    mean, spread = train.mean(axis=0), train.std(axis=0) + 1e-3

    def seen(rows: Rows) -> Tensor:
        # A symbol that was hardly ever there would else be a thousand spreads away.
        return torch.from_numpy(np.clip((rows - mean) / spread, -FURTHEST, FURTHEST))

    x = seen(train)
    head = nn.Sequential(
        nn.Linear(x.shape[1], HIDDEN), nn.ReLU(), nn.Dropout(0.3), nn.Linear(HIDDEN, outputs)
    )
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3, weight_decay=1e-2)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(x)).split(BATCH_FACES):  # type: ignore[no-untyped-call]  # torch's own gap
            wrong = loss(head(x[chosen]), chosen)
            optimizer.zero_grad()
            wrong.backward()  # type: ignore[no-untyped-call]  # torch's own gap
            optimizer.step()
    with torch.no_grad():
        said: NDArray[Any] = head.eval()(seen(valid)).numpy()
    return said
