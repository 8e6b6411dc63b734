"""The rows by which later faces of a track are coded, from training faces that move.

For each stir, position and symbol before, what was counted is shrunk to what is known of the stir
at all positions: how often a symbol stays, how it changes else, and the position's own prior.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray

from mien.holding import HALF, HOLD_UNIT, LARGEST_HOLD, held, quantised
from mien.range_coder import TOTAL
from mien.stir import GIVEN, stir_of
from mien.tables import CdfTables
from trainer.data.faces import FaceSet
from trainer.examples import as_float
from trainer.level_tables import row_of
from trainer.motion import moving
from trainer.runtime import AnalysisNetwork, Network

FRAMES = 8
BATCH_FACES = 512
MAX_FACES = 8192
SENSITIVITY_FACES = 256
TINY = 1e-9
HOLD_PAST = 0.01
"""How far past rounding a symbol of middling weight stays. Chosen on six clips at ten faces a
second: 97.5% of the faces or more keep the name that rounding gives them, for a tenth to a quarter
of the bytes. Three times as much saves a fifth more, and up to 7.5% lose it."""
SPAN = 20
"""Symbols beyond are left to the escape."""
FURTHEST_BEFORE = 5
# A symbol before that is rarer than this shares the row of the next one towards the middle.
RAREST_BEFORE = 0.003
# How many observations what is known of all positions counts for.
SHRINKAGE = 40.0


@dataclass(frozen=True, eq=False)
class Transitions:
    """Counts (stirs, L, symbol before, symbol), the symbols from -SPAN to SPAN."""

    counts: NDArray[np.float64]

    @classmethod
    def none(cls, positions: int) -> "Transitions":
        """Nothing seen yet."""
        sizes = len(GIVEN), positions, 2 * FURTHEST_BEFORE + 1, 2 * SPAN + 1
        return cls(np.zeros(sizes))

    def add(self, before: NDArray[np.int32], after: NDArray[np.int32]) -> None:
        """Count the faces of which some but not too many positions changed; int32 (N, L) each."""
        changes = (before != after).sum(axis=1).tolist()
        stirs = np.array([stir_of(number) for number in changes])
        place = np.arange(before.shape[1])
        for index, stir in enumerate(GIVEN):
            chosen = stirs == stir
            was = np.clip(before[chosen], -FURTHEST_BEFORE, FURTHEST_BEFORE) + FURTHEST_BEFORE
            now = np.clip(after[chosen], -SPAN, SPAN) + SPAN
            np.add.at(self.counts[index], (np.broadcast_to(place, was.shape), was, now), 1)


def with_tracks(
    first: CdfTables, analysis: AnalysisNetwork, classifier: Network, train: FaceSet
) -> CdfTables:
    """Add rows for later faces, and holds, to tables with the rows of faces told afresh."""
    y = analysis(train.pixels[: min(len(train), SENSITIVITY_FACES)])
    holds = [
        holds_of(sensitivity(classifier, quantised(y, gains), level))
        for level, gains in enumerate(first.gains)
    ]
    return add_rows(first, count_transitions(analysis, train, first.gains, holds), holds)


def sensitivity(classifier: Network, symbols: NDArray[np.int32], level: int) -> NDArray[np.float64]:
    """What a symbol that is one off changes in the answer, mean KL divergence in nats, (L,)."""
    levels = np.full(len(symbols), level, np.int32)
    right = np.log(classifier(symbols=symbols, level=levels).astype(np.float64) + TINY)
    flat = symbols.reshape(len(symbols), -1)
    divergence = np.zeros(flat.shape[1])
    for position in range(flat.shape[1]):
        for off in (-1, 1):
            wrong = flat.copy()
            wrong[:, position] += off
            found = classifier(symbols=wrong.reshape(symbols.shape), level=levels)
            answer = np.log(found.astype(np.float64) + TINY)
            divergence[position] += np.mean(np.sum(np.exp(right) * (right - answer), axis=1)) / 2
    return np.asarray(divergence, np.float64)


def holds_of(divergence: NDArray[np.float64]) -> NDArray[np.int32]:
    """How long a symbol stays: past rounding, by the inverse root of what it matters.

    The divergence grows as the square of an error, so all errors matter alike.
    """
    logarithm = np.log(np.maximum(divergence, TINY))
    past = HOLD_PAST * np.exp((logarithm.mean() - logarithm) / 2)
    holds = HALF + np.rint(past / HOLD_UNIT)
    return np.asarray(np.minimum(holds, LARGEST_HOLD), np.int32)


def count_transitions(
    analysis: AnalysisNetwork,
    train: FaceSet,
    gains: NDArray[np.float32],
    holds: Sequence[NDArray[np.int32]],
) -> list[Transitions]:
    """What an edge's symbols do from face to face at each level, on simulated tracks."""
    seen = [Transitions.none(len(of_level)) for of_level in holds]
    generator = torch.Generator().manual_seed(1)
    for start in range(0, min(len(train), MAX_FACES), BATCH_FACES):
        faces = as_float(train.pixels[start : start + BATCH_FACES])
        before: dict[int, NDArray[np.int32]] = {}
        for view in moving(faces, FRAMES, generator):
            y = analysis((view * 255).round().byte().numpy())
            for level, of_channels in enumerate(gains):
                scaled = y * of_channels[:, None, None]
                after = quantised(y, of_channels)
                if level in before:
                    after = held(scaled, before[level], holds[level])
                    pair = (before[level].reshape(len(y), -1), after.reshape(len(y), -1))
                    seen[level].add(*pair)
                before[level] = after
    return seen


def add_rows(
    first: CdfTables, seen: Sequence[Transitions], holds: Sequence[NDArray[np.int32]]
) -> CdfTables:
    """The tables with a row for each level, stir, position and symbol before that is not rare."""
    known = first.rows()
    rows = [row for row, _ in known]
    offsets = [offset for _, offset in known]
    positions = len(holds[0])
    contexts = np.zeros((first.levels, len(GIVEN), positions, 3), np.int32)
    for level, transitions in enumerate(seen):
        usual = _usual(first, level)
        for stir in range(len(GIVEN)):
            counts = transitions.counts[stir]
            steps = _steps(counts)
            for position, prior in enumerate(usual):
                lowest, highest = _befores(prior)
                contexts[level, stir, position] = len(rows), highest - lowest + 1, lowest
                stays = _stays(counts[position], counts)
                for before in range(lowest, highest + 1):
                    parent = _parent(before, stays, steps, prior)
                    pmf = counts[position, before + FURTHEST_BEFORE] + SHRINKAGE * parent
                    row, offset = row_of(pmf / pmf.sum(), -SPAN)
                    rows.append(row.tolist())
                    offsets.append(offset)
    return CdfTables.from_rows(
        rows, offsets, first.shape, contexts, np.stack(holds), first.gains, first.priors
    )


def _usual(first: CdfTables, level: int) -> list[NDArray[np.float64]]:
    """What a face told afresh has at each position, the mean of a level's priors."""
    positions = prod(first.shape)
    each = [
        [_prior(*first.row(first.first_row(level, prior) + at)) for prior in range(first.priors)]
        for at in range(positions)
    ]
    return [np.mean(of_position, axis=0) for of_position in each]


def _prior(row: Sequence[int], offset: int) -> NDArray[np.float64]:
    """What a face told afresh has at this position, (2·SPAN + 1,)."""
    pmf = np.full(2 * SPAN + 1, 1e-9)
    for symbol, count in enumerate(np.diff(row)[:-1], offset):
        if abs(symbol) <= SPAN:
            pmf[symbol + SPAN] += count / TOTAL
    return np.asarray(pmf / pmf.sum())


def _befores(prior: NDArray[np.float64]) -> tuple[int, int]:
    middle = prior[SPAN - FURTHEST_BEFORE : SPAN + FURTHEST_BEFORE + 1]
    likely = np.flatnonzero(middle >= RAREST_BEFORE)
    if not len(likely):
        return 0, 0
    return int(likely[0]) - FURTHEST_BEFORE, int(likely[-1]) - FURTHEST_BEFORE


def _stays(own: NDArray[np.float64], all_counts: NDArray[np.float64]) -> float:
    """How often a symbol of this position stays, whatever it is."""

    def stay(counts: NDArray[np.float64]) -> float:
        befores = np.arange(-FURTHEST_BEFORE, FURTHEST_BEFORE + 1)
        return float(counts[..., befores + FURTHEST_BEFORE, befores + SPAN].sum())

    share = (stay(all_counts) + 1) / (all_counts.sum() + 2)
    return float((stay(own) + SHRINKAGE * share) / (own.sum() + SHRINKAGE))


def _steps(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far symbols go that do not stay, (4·SPAN + 1,), from -2·SPAN."""
    steps = np.full(4 * SPAN + 1, 1e-6)
    for before in range(-FURTHEST_BEFORE, FURTHEST_BEFORE + 1):
        start = SPAN - before
        steps[start : start + 2 * SPAN + 1] += counts[:, before + FURTHEST_BEFORE].sum(axis=0)
    steps[2 * SPAN] = 0
    return np.asarray(steps / steps.sum())


def _parent(
    before: int, stays: float, steps: NDArray[np.float64], prior: NDArray[np.float64]
) -> NDArray[np.float64]:
    leaves = steps[SPAN - before : 3 * SPAN + 1 - before] * np.sqrt(prior)
    leaves = (1 - stays) * leaves / leaves.sum()
    leaves[before + SPAN] += stays
    return np.asarray(leaves)
