"""Symbols chosen for their bits: cheaper, never far, and a decoder needs not know."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mien.choosing import chosen
from tests.support.tiny_bundle import SHAPE, tiny_symbols, tiny_tables

TABLES = tiny_tables()


def latents(count: int, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 0.4, (count, *SHAPE))
    return (tiny_symbols(count, seed) + noise).astype(np.float32)


def bits(symbols: np.ndarray, level: int) -> float:
    rows = TABLES.first_rows(level, TABLES.best_prior(symbols, level))
    return TABLES.ideal_bits(symbols, rows)


@given(st.integers(0, 1000), st.integers(0, TABLES.levels - 1))
def test_without_strength_symbols_are_rounded(seed, level):
    (y,) = latents(1, seed)
    assert np.array_equal(chosen(y, TABLES, level, 0.0), np.rint(y))


@given(st.integers(0, 1000), st.floats(0.001, 0.5))
def test_a_choice_lies_between_zero_and_what_rounding_gives(seed, strength):
    (y,) = latents(1, seed)
    symbols, rounded = chosen(y, TABLES, 2, strength), np.rint(y)
    assert (np.abs(symbols) <= np.abs(rounded)).all()
    assert (symbols * rounded >= 0).all()
    assert symbols.dtype == np.int32


@pytest.mark.parametrize("level", range(TABLES.levels))
def test_a_greater_strength_costs_fewer_bits(level):
    total = [
        sum(bits(chosen(y, TABLES, level, strength), level) for y in latents(60, 3))
        for strength in (0.0, 0.03, 0.1, 0.3)
    ]
    assert total == sorted(total, reverse=True)
    assert total[-1] < 0.98 * total[0]
