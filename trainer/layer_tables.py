"""The rows of the enhancement layers' symbols, from training faces, with priors that compete.

What a symbol costs decides which are chosen, and which are chosen decides what they cost: so tables
and symbols are found by turns, from rounding on. A place is a position and a quantiser of
mien.trellis, and each has a row of each prior.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from mien.holding import quantised
from mien.layers import kept
from mien.tables import CdfTables
from mien.trellis import HALF_STEPS, QUANTISERS, quantisers
from mien.trellis_choice import chosen
from trainer.data.faces import FaceSet
from trainer.examples import as_float
from trainer.level_tables import PRIORS, SYMBOL_RANGE, Counts, competing, row_of
from trainer.motion import moving
from trainer.runtime import AnalysisNetwork, Network

MAX_FACES = 12_000
BATCH_FACES = 512
TURNS = 4

Enhancements = NDArray[np.float32]


def layer_tables(
    analysis: AnalysisNetwork,
    enhancement: Network,
    tables: CdfTables,
    train: FaceSet,
    layer_channels: Sequence[int],
) -> list[CdfTables]:
    """The tables of each layer; the base's level goes round from batch to batch.

    layer_channels: how many channels of the enhancement each layer has, the first layer's first.
    """
    e = np.concatenate(list(_enhancements(analysis, enhancement, tables, train)))
    return tables_for(e, layer_channels)


def tables_for(e: Enhancements, layer_channels: Sequence[int]) -> list[CdfTables]:
    """The tables of each layer for enhancements like these, float32 (N, E, H, W)."""
    ends = np.cumsum([0, *layer_channels]).tolist()
    return [
        _tables(e[:, start:end], kept(layer)) for layer, (start, end) in enumerate(pairwise(ends))
    ]


def _tables(e: Enhancements, whole: int) -> CdfTables:
    """One layer's, by turns. whole: how many of its first positions are kept."""
    # Where quantisers would be even if nobody chose: neither is likelier than the other.
    states = np.random.default_rng(0).integers(0, QUANTISERS, (len(e), e[0].size))
    flat = e.reshape(len(e), -1)
    symbols = np.rint(flat + np.sign(flat) * states / HALF_STEPS).astype(np.int32)
    tables = _counted(symbols, states, e.shape)
    for _ in range(TURNS):
        parts = [
            chosen(e[start : start + BATCH_FACES], tables, whole)
            for start in range(0, len(e), BATCH_FACES)
        ]
        symbols = np.concatenate(parts).reshape(len(e), -1)
        tables = _counted(symbols, quantisers(symbols), e.shape)
    return tables


def _counted(
    symbols: NDArray[np.int32], states: NDArray[np.int64], shape: tuple[int, ...]
) -> CdfTables:
    """Tables for symbols (N, L), each of a quantiser, of enhancements of that shape."""
    positions = symbols.shape[1]
    clipped = np.clip(symbols, -SYMBOL_RANGE, SYMBOL_RANGE)
    places = states * positions + np.arange(positions)
    pmf: Counts = competing(clipped, places, QUANTISERS * positions, np.random.default_rng(0))
    # (PRIORS, QUANTISERS · L, bins) → the order of the tables: quantiser, prior, position.
    ordered = pmf.reshape(PRIORS, QUANTISERS, positions, -1).swapaxes(0, 1)
    rows, offsets = zip(
        *(row_of(row, -SYMBOL_RANGE) for row in ordered.reshape(-1, pmf.shape[-1])), strict=True
    )
    _, channels, height, width = shape
    gains = np.ones((QUANTISERS, channels), np.float32)
    return CdfTables.from_rows(rows, offsets, (channels, height, width), gains=gains, priors=PRIORS)


def _enhancements(
    analysis: AnalysisNetwork, enhancement: Network, tables: CdfTables, train: FaceSet
) -> Iterator[Enhancements]:
    generator = torch.Generator().manual_seed(2)
    for batch, start in enumerate(range(0, min(len(train), MAX_FACES), BATCH_FACES)):
        pixels = train.pixels[start : start + BATCH_FACES]
        (moved,) = moving(as_float(pixels), 1, generator)
        for faces in (pixels, (moved * 255).round().byte().numpy()):
            level = batch % tables.levels
            symbols = quantised(analysis(faces), tables.gains[level])
            yield enhancement(faces, symbols, np.full(len(faces), level, np.int32))
