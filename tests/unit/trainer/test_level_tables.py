"""The rows of faces told afresh: as wide as symbols are, and not dearer for it."""

import numpy as np

from mien.holding import quantised
from trainer.level_tables import level_tables

GAINS = np.array([[0.05, 0.05], [1.0, 1.0]], np.float32)
SPREAD = 60.0


def test_symbols_of_fine_levels_are_told_by_rows_and_not_by_escapes() -> None:
    random = np.random.default_rng(0)
    y = random.normal([[0.0, 90.0]], SPREAD, (20_000, 2)).astype(np.float32)[:, :, None, None]
    tables = level_tables(y[:16_000], GAINS)
    unseen = quantised(y[16_000:], GAINS[1])
    bits = [
        tables.ideal_bits(face, tables.first_rows(1, tables.best_prior(face, 1))) for face in unseen
    ]
    entropy = 2 * np.log2(SPREAD * np.sqrt(2 * np.pi * np.e))  # of two normal distributions
    # A prior takes two bits, which its narrower rows give back in part.
    assert np.mean(bits) + 2 < entropy + 1.5


def test_rows_of_coarse_levels_stay_short() -> None:
    y = np.random.default_rng(1).normal(0, SPREAD, (8_000, 2, 1, 1)).astype(np.float32)
    tables = level_tables(y, GAINS)
    assert tables.sizes[: tables.first_row(1, 0)].max() < 40
    assert len(tables.cdf) == (tables.sizes + 1).sum()
