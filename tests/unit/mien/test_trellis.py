"""The trellis: what symbols stand for, and that the encoder's way through it is the best."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mien.errors import EncodeError, SymbolRangeError, TablesError
from mien.integer_cdf import integer_cdf
from mien.layers import LayerCodec
from mien.tables import COST_UNIT, CdfTables
from mien.trellis import HALF_STEPS, NEXT, QUANTISERS, STATES, quantisers, values
from mien.trellis_choice import BIT_WORTH, chosen


def tables(positions: int, widths: tuple[float, ...] = (2.0, 1.0), priors: int = 1) -> CdfTables:
    """Two-sided geometric rows, as wide for each quantiser."""
    symbols = np.arange(-40, 41)
    rows = []
    for width in widths:
        mass = 2.0 ** (-np.abs(symbols) / width)
        rows += [integer_cdf(np.append(mass / mass.sum(), 1e-6))] * (positions * priors)
    gains = np.ones((len(widths), 1))
    offsets = [-40] * len(rows)
    return CdfTables.from_rows(rows, offsets, (1, 1, positions), gains=gains, priors=priors)


def loss(e: np.ndarray, symbols: np.ndarray, by: CdfTables) -> np.ndarray:
    """What each way (N, L) loses as the encoder's choice counts it."""
    row = quantisers(symbols) * by.first_row(1, 0) + by.first_rows(0, 0)
    bits = by.costs(symbols, row) / COST_UNIT
    return np.sum(BIT_WORTH * bits + (values(symbols) / HALF_STEPS - e) ** 2, axis=1)


def test_what_no_symbol_reaches_is_refused_alike_everywhere() -> None:
    by = tables(4)
    far = np.array([[1e30, -1e30, 3e9, 0]], np.float32).reshape(1, 1, 1, 4)
    with np.errstate(all="raise"):
        symbols = chosen(far, by)
    with pytest.raises(SymbolRangeError):
        LayerCodec(by, 0).encode(b"", [symbols[0]])


def test_each_state_has_two_ways_in_and_two_ways_out_of_other_parity() -> None:
    assert len(NEXT) == 2 * STATES
    assert sorted(NEXT) == sorted([*range(STATES)] * 2)
    assert all(NEXT[2 * state] != NEXT[2 * state + 1] for state in range(STATES))


@given(arrays(np.int32, (3, 9), elements=st.integers(-50, 50)))
def test_a_symbol_stands_for_whole_steps_or_for_half_a_step_less(symbols: np.ndarray) -> None:
    stood, by = values(symbols), quantisers(symbols)
    assert (by[:, 0] == 0).all()
    assert np.array_equal(stood, HALF_STEPS * symbols - by * np.sign(symbols))
    # What comes later changes nothing.
    assert np.array_equal(values(symbols[:, :5]), stood[:, :5])
    assert np.array_equal(values(-symbols), -stood)


@given(arrays(np.float32, 4, elements=st.floats(-3, 3, width=32)))
def test_no_other_way_loses_less(e: np.ndarray) -> None:
    by = tables(4)
    found = chosen(e.reshape(1, 1, 1, 4), by).reshape(1, 4)
    ways = np.array(list(product(range(-5, 6), repeat=4)), np.int32)
    assert loss(e, found, by)[0] <= loss(e, ways, by).min() + 1e-4


def test_bits_and_errors_are_worth_less_than_by_rounding() -> None:
    e = np.random.default_rng(0).laplace(size=(200, 1, 1, 60), scale=4).astype(np.float32)
    by = tables(60, (3.0, 3.0))
    symbols = chosen(e, by).reshape(200, 60)
    rounded = np.rint(e).astype(np.int32).reshape(200, 60)
    flat = e.reshape(200, 60)
    nearer = np.mean((rounded - flat) ** 2) / np.mean((values(symbols) / HALF_STEPS - flat) ** 2)
    rows = quantisers(symbols) * by.first_row(1, 0) + by.first_rows(0, 0)
    bits = (by.costs(symbols, rows), by.costs(rounded, by.first_rows(0, 0)))
    dearer = (bits[0] - bits[1]).mean() / COST_UNIT
    # A bit is worth 6.02 dB.
    assert 10 * np.log10(nearer) - 6.02 * dearer > 0.7


def test_what_is_kept_stays_and_whoever_else_is_asked_changes_nothing() -> None:
    e = np.random.default_rng(1).normal(size=(5, 1, 1, 12), scale=2).astype(np.float32)
    e[:, 0, 0, 0] = [9, -7, 0, 30, -31]
    by = tables(12, (0.5, 0.5))
    together = chosen(e, by, 1)
    assert np.array_equal(together[..., 0], e[..., 0])
    for face, symbols in zip(e, together, strict=True):
        assert np.array_equal(chosen(face[None], by, 1)[0], symbols)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(wrong: float) -> None:
    with pytest.raises(EncodeError, match="finite"):
        chosen(np.full((1, 1, 1, 4), wrong, np.float32), tables(4))


def test_tables_for_rounded_symbols_are_refused() -> None:
    with pytest.raises(TablesError, match=f"{QUANTISERS} quantisers"):
        LayerCodec(tables(4, (2.0,)), 0)
