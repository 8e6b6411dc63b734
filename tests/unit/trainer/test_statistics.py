"""Intervals and McNemar's test."""

import numpy as np
import pytest

from trainer.compare.statistics import interval, mcnemar, resampled_weights


def test_every_resample_draws_as_many_faces_as_there_are() -> None:
    weights = resampled_weights(50, 20)
    assert weights.shape == (20, 50)
    assert np.allclose(weights.sum(axis=1), 1)
    assert np.allclose(weights * 50, np.rint(weights * 50))


def test_the_same_seed_draws_the_same_faces() -> None:
    assert np.array_equal(resampled_weights(9, 5, 3), resampled_weights(9, 5, 3))
    assert not np.array_equal(resampled_weights(9, 5, 3), resampled_weights(9, 5, 4))


def test_the_interval_of_a_difference_covers_the_truth_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    weights = resampled_weights(200, 400)
    covered = 0
    for _ in range(200):
        easy = random.random(200)
        first, second = easy < 0.8, easy + random.normal(0, 0.1, 200) < 0.7
        # The noise is far too small to reach either edge: 0.7 of all faces stay below 0.7.
        found = interval(weights @ (first.astype(float) - second))
        assert found is not None
        covered += found[0] <= 0.1 <= found[1]
    assert 0.88 <= covered / 200 <= 0.99


def test_pairing_makes_the_interval_of_a_difference_narrower() -> None:
    random = np.random.default_rng(1)
    easy = random.random(500)
    first, second = (easy < 0.8).astype(float), (easy < 0.75).astype(float)
    weights = resampled_weights(500, 1000)
    paired, alone = interval(weights @ (first - second)), interval(weights @ first)
    assert paired is not None
    assert alone is not None
    assert paired[1] - paired[0] < 0.7 * (alone[1] - alone[0])


def test_too_few_figures_make_no_interval() -> None:
    draws = np.linspace(0, 1, 100)
    assert interval(draws, 0.5) == pytest.approx((0.25, 0.75))
    draws[:4] = np.nan
    assert interval(draws) is not None
    draws[:6] = np.nan
    assert interval(draws) is None


def test_mcnemar_counts_the_faces_that_one_alone_names_rightly() -> None:
    first = np.array([1, 1, 1, 1, 1, 0, 0, 1], dtype=bool)
    second = np.array([0, 0, 0, 0, 0, 1, 0, 1], dtype=bool)
    found = mcnemar(first, second)
    assert (found.only_first, found.only_second) == (5, 1)
    # Of 6 tosses, 1 head or fewer, doubled: 2 · (1 + 6) / 64.
    assert found.p == pytest.approx(14 / 64)


def test_mcnemar_of_equals_is_1_and_of_thousands_is_still_a_number() -> None:
    same = np.ones(10, dtype=bool)
    assert mcnemar(same, same).p == 1
    first = np.arange(20000) % 5 < 3
    assert 0 <= mcnemar(first, ~first).p < 1e-100
    assert mcnemar(np.arange(20000) % 2 == 0, np.arange(20000) % 2 == 1).p == 1


def test_other_faces_are_refused() -> None:
    with pytest.raises(ValueError, match="not the same faces"):
        mcnemar(np.ones(3, dtype=bool), np.ones(4, dtype=bool))
