"""Rows for later faces: learned from what symbols do, and never far from what is known of all."""

from itertools import pairwise

import numpy as np
import torch

from mien.holding import HALF, LARGEST_HOLD
from mien.integer_cdf import integer_cdf
from mien.range_coder import TOTAL
from mien.stir import GIVEN
from mien.tables import CdfTables
from trainer.level_tables import competing, level_tables
from trainer.motion import moving
from trainer.track_tables import Transitions, add_rows, holds_of

SHAPE = (2, 1, 3)
POSITIONS = 6


def first_tables() -> CdfTables:
    mass = 2.0 ** -np.abs(np.arange(-4, 5))
    return CdfTables.from_rows([integer_cdf([*mass, 1e-3])] * POSITIONS, [-4] * POSITIONS, SHAPE)


def walk(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Faces of which one position goes up by one, and five stay."""
    random = np.random.default_rng(3)
    before = random.integers(-2, 3, (count, POSITIONS)).astype(np.int32)
    after = before.copy()
    after[:, 2] += 1
    return before, after


def learned() -> CdfTables:
    seen = Transitions.none(POSITIONS)
    seen.add(*walk(4000))
    return add_rows(first_tables(), [seen], [np.full(POSITIONS, 40, np.int32)])


def test_rows_given_the_one_before_make_its_changes_cheap():
    tables, (before, after) = learned(), walk(50)
    told = [
        tables.ideal_bits(now.reshape(SHAPE), tables.rows_given(was.reshape(SHAPE), GIVEN[0]))
        for was, now in zip(before, after, strict=True)
    ]
    first = tables.first_rows(0, 0)
    afresh = [tables.ideal_bits(now.reshape(SHAPE), first) for now in after]
    assert np.mean(told) < 0.1 * np.mean(afresh)


def test_what_was_never_seen_can_be_coded_all_the_same():
    tables = learned()
    far = np.full(SHAPE, 900, np.int32)
    for stir in GIVEN:
        assert np.isfinite(tables.ideal_bits(far, tables.rows_given(-far, stir)))
    assert all(tables.counts(row)[-1] == TOTAL for row in range(len(tables.sizes)))


def test_faces_that_changed_too_much_or_not_at_all_are_not_counted():
    seen = Transitions.none(50)
    before = np.zeros((3, 50), np.int32)
    after = before.copy()
    after[1] = 1
    after[2, :2] = 1
    seen.add(before, after)
    assert seen.counts.sum() == 50
    assert seen.counts[0].sum() == 50


def test_what_matters_less_is_held_longer():
    holds = holds_of(np.array([1.0, 1e-2, 1e-4, 1e-6, 0.0]))
    assert (np.diff(holds) >= 0).all()
    assert holds[0] < holds[2] <= LARGEST_HOLD
    assert holds.min() >= HALF


def test_simulated_faces_move_from_frame_to_frame_and_stay_pictures():
    generator = torch.Generator().manual_seed(0)
    faces = torch.rand(4, 1, 48, 48, generator=generator)
    views = moving(faces, 3, generator)
    assert [view.shape for view in views] == [faces.shape] * 3
    assert all(view.min() >= 0 and view.max() <= 1 for view in views)
    assert all((a - b).abs().mean() > 0 for a, b in pairwise(views))


def test_priors_that_compete_tell_sorts_of_faces_apart():
    """Half of the faces have small symbols and half have large ones: each sort has its prior."""
    random = np.random.default_rng(5)
    scale = np.where(np.arange(4000) % 2, 4.0, 0.3)[:, None]
    drawn = random.laplace(0, scale, (4000, POSITIONS))
    symbols = np.clip(np.rint(drawn), -40, 40).astype(np.int32)
    places = np.broadcast_to(np.arange(POSITIONS), symbols.shape)
    pmf = competing(symbols, places, POSITIONS, random)
    assert np.allclose(pmf.sum(axis=2), 1)
    zero = pmf[:, :, pmf.shape[2] // 2].mean(axis=1)
    assert zero.max() > 0.8
    assert zero.min() < 0.3
    y = symbols.reshape(-1, *SHAPE).astype(np.float32)
    tables = level_tables(y, np.ones((1, SHAPE[0]), np.float32))
    bits = []
    for face in y[:200].astype(np.int32):
        rows = tables.first_rows(0, tables.best_prior(face, 0))
        bits.append(2 + tables.ideal_bits(face, rows))
    pooled = np.bincount(symbols.ravel() + 60, minlength=121) / symbols.size
    entropy = -np.sum(pooled * np.log2(np.maximum(pooled, 1e-12)))
    assert np.mean(bits) < entropy * POSITIONS
