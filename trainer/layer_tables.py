"""The rows of the enhancement layers' symbols, from training faces, with priors that compete."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from mien.holding import quantised
from mien.tables import CdfTables
from trainer.data.faces import FaceSet
from trainer.examples import as_float
from trainer.level_tables import level_tables
from trainer.motion import moving
from trainer.runtime import Network

MAX_FACES = 12_000
BATCH_FACES = 512


def layer_tables(
    analysis: Network,
    enhancement: Network,
    tables: CdfTables,
    train: FaceSet,
    layer_channels: Sequence[int],
) -> list[CdfTables]:
    """The tables of each layer; the base's level goes round from batch to batch.

    layer_channels: how many channels of the enhancement each layer has, the first layer's first.
    """
    e = np.concatenate(list(_enhancements(analysis, enhancement, tables, train)))
    ends = np.cumsum([0, *layer_channels])
    return [
        level_tables(e[:, start:end], np.ones((1, end - start), np.float32))
        for start, end in pairwise(ends.tolist())
    ]


def _enhancements(
    analysis: Network, enhancement: Network, tables: CdfTables, train: FaceSet
) -> Iterator[NDArray[np.float32]]:
    generator = torch.Generator().manual_seed(2)
    for batch, start in enumerate(range(0, min(len(train), MAX_FACES), BATCH_FACES)):
        pixels = train.pixels[start : start + BATCH_FACES]
        (moved,) = moving(as_float(pixels), 1, generator)
        for faces in (pixels, (moved * 255).round().byte().numpy()):
            level = batch % tables.levels
            symbols = quantised(analysis(faces), tables.gains[level])
            yield enhancement(faces, symbols, np.full(len(faces), level, np.int32))
