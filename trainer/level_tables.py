"""The rows by which faces are told afresh: of each quality level, a few priors that compete.

The priors of a level are clusters of training latents, each face in the cluster whose rows code it
in the fewest bits: k-means in which the distance is the length of the code. Light, pose and
expression make some faces' latents small and others' large; a face says which sort it is in two
bits, and the rows of its sort are narrower than those of all.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from mien.holding import quantised
from mien.integer_cdf import integer_cdf
from mien.tables import CdfTables
from trainer.augment import Augmentation, augment
from trainer.data.faces import FaceSet
from trainer.examples import as_float
from trainer.runtime import AnalysisNetwork

PRIORS = 4
ROUNDS = 6
CLUSTERED_FACES = 12_000
BATCH_FACES = 1024
# As far as symbols of the finest levels go.
SYMBOL_RANGE = 400
# Symbols less likely than this share one escape bin.
RAREST_BIN = 2.0**-13
# How many faces what is known of all sorts counts for within one, and a guess within all.
SHRINKAGE, GUESS = 100.0, 20.0
# Of any symbol, wherever it is.
UNSEEN = 1e-9

Counts = NDArray[np.float64]


def latents_of(analysis: AnalysisNetwork, train: FaceSet) -> NDArray[np.float32]:
    """y of training faces as they are, and then augmented: float32 (2·N, C, H, W)."""
    generator = torch.Generator().manual_seed(0)
    plain, changed = [], []
    for start in range(0, len(train), BATCH_FACES):
        pixels = train.pixels[start : start + BATCH_FACES]
        moved = augment(as_float(pixels), Augmentation(), generator)
        plain.append(analysis(pixels))
        changed.append(analysis((moved * 255).round().byte().numpy()))
    return np.asarray(np.concatenate([*plain, *changed]), np.float32)


def level_tables(y: NDArray[np.float32], gains: NDArray[np.float32]) -> CdfTables:
    """Tables with the rows of faces told afresh, of all levels and priors.

    y: float32 (N, C, H, W), latents of faces. gains: float32 (levels, C).
    """
    rows, offsets = [], []
    for level, of_channels in enumerate(gains):
        symbols = quantised(y, of_channels)
        flat = np.clip(symbols, -SYMBOL_RANGE, SYMBOL_RANGE).reshape(len(y), -1)
        places = np.broadcast_to(np.arange(flat.shape[1]), flat.shape)
        for pmf in competing(flat, places, flat.shape[1], np.random.default_rng(level)):
            for position in pmf:
                row, offset = row_of(position, -SYMBOL_RANGE)
                rows.append(row)
                offsets.append(offset)
    shape = (y.shape[1], y.shape[2], y.shape[3])
    return CdfTables.from_rows(rows, offsets, shape, gains=gains, priors=PRIORS)


def competing(
    symbols: NDArray[np.int32],
    places: NDArray[np.int64],
    count: int,
    random: np.random.Generator,
) -> Counts:
    """Priors that compete for faces, float64 (PRIORS, count, 2·SYMBOL_RANGE + 1).

    symbols: (N, L). places: (N, L), of each symbol the row that tells it, of so many.
    """
    some = random.permutation(len(symbols))[:CLUSTERED_FACES]
    chosen, theirs = symbols[some], places[some]
    # By size at first: the sorts differ most in how far from zero their symbols are.
    order = np.abs(chosen).sum(axis=1).argsort(kind="stable").argsort(kind="stable")
    sort = order * PRIORS // len(chosen)
    for _ in range(ROUNDS):
        sort = _cheapest(chosen, theirs, _masses(chosen, theirs, count, sort))
    pmf = _masses(chosen, theirs, count, sort)
    return _masses(symbols, places, count, _cheapest(symbols, places, pmf))


def _masses(
    symbols: NDArray[np.int32], places: NDArray[np.int64], count: int, sort: NDArray[np.int64]
) -> Counts:
    counts = np.stack(
        [_histogram(symbols[sort == p], places[sort == p], count) for p in range(PRIORS)]
    )
    span = np.abs(np.arange(-SYMBOL_RANGE, SYMBOL_RANGE + 1))
    # Further out is less likely, also where nothing was seen, but never impossible.
    guess = 0.5 ** (2 * span) + UNSEEN
    guess /= guess.sum()
    every = counts.sum(axis=0) + GUESS * guess
    shared = every / every.sum(axis=1, keepdims=True)
    mass = counts + SHRINKAGE * shared
    return np.asarray(mass / mass.sum(axis=2, keepdims=True))


def _histogram(symbols: NDArray[np.int32], places: NDArray[np.int64], count: int) -> Counts:
    """How often each symbol was seen at each place, float64 (count, 2·SYMBOL_RANGE + 1)."""
    bins = 2 * SYMBOL_RANGE + 1
    at = places * bins + symbols + SYMBOL_RANGE
    return np.bincount(at.ravel(), minlength=count * bins).reshape(count, bins) * 1.0


def _cheapest(
    symbols: NDArray[np.int32], places: NDArray[np.int64], pmf: Counts
) -> NDArray[np.int64]:
    """By which prior each face costs the fewest bits, int64 (N,)."""
    cost = -np.log2(pmf).astype(np.float32)
    bits = np.zeros((PRIORS, len(symbols)), np.float32)
    for start in range(0, len(symbols), BATCH_FACES):
        part = slice(start, start + BATCH_FACES)
        for prior in range(PRIORS):
            of_symbols = cost[prior][places[part], symbols[part] + SYMBOL_RANGE]
            bits[prior, part] = of_symbols.sum(axis=1)
    return np.asarray(bits.argmin(axis=0), np.int64)


def row_of(pmf: NDArray[np.float64], lowest: int) -> tuple[NDArray[np.uint32], int]:
    """One row, and the symbol of its first bin, from probabilities of lowest, lowest + 1, ….

    It keeps the run of symbols from its first to its last that is likelier than RAREST_BIN; what
    lies outside goes to the escape bin.
    """
    likely = np.flatnonzero(pmf >= RAREST_BIN)
    first, last = int(likely[0]), int(likely[-1])
    inside = pmf[first : last + 1]
    outside = max(1 - float(inside.sum()), 2.0**-16)
    return integer_cdf(np.append(inside, outside)), lowest + first
