"""Bjøntegaard deltas of curves whose answers are known."""

import bjontegaard
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.compare.deltas import (
    NO_OVERLAP,
    TOO_FEW,
    Curve,
    bd_quality,
    bd_rate,
    pareto_front,
    quality_at,
    size_for,
)
from trainer.compare.draws import Draws, bd_quality_draws, bd_rate_draws

SIZES = np.array([20.0, 35, 60, 100, 170, 290, 490, 830])
QUALITY = np.array([61.0, 68, 73, 76.5, 79, 80.5, 81.3, 81.7])
ANCHOR = Curve(SIZES, QUALITY)


@pytest.mark.parametrize("how", ["pchip", "akima"])
def test_half_the_bytes_everywhere_is_minus_50_percent(how: str) -> None:
    delta = bd_rate(ANCHOR, Curve(SIZES / 2, QUALITY), how)  # type: ignore[arg-type]
    assert delta.value == pytest.approx(-50)
    assert (delta.low, delta.high, delta.share) == (61, 81.7, 1)


@pytest.mark.parametrize("how", ["pchip", "akima"])
def test_two_points_more_everywhere_are_plus_two_points(how: str) -> None:
    delta = bd_quality(ANCHOR, Curve(SIZES, QUALITY + 2), how)  # type: ignore[arg-type]
    assert delta.value == pytest.approx(2)
    assert delta.low == pytest.approx(20)
    assert delta.high == pytest.approx(830)


def test_the_overlap_is_what_both_curves_have_and_its_share_of_what_either_has() -> None:
    rates = bd_quality(
        Curve(np.array([10.0, 100]), np.array([1.0, 2])),
        Curve(np.array([100.0 / 10**0.5, 1000]), np.array([1.0, 2])),
    )
    assert rates.low == pytest.approx(31.6, abs=0.1)
    assert rates.high == pytest.approx(100)
    assert rates.share == pytest.approx(0.25)


def test_curves_that_do_not_meet_have_no_delta_and_the_reason_is_given() -> None:
    above = bd_rate(ANCHOR, Curve(SIZES, QUALITY + 30.0))
    assert (above.value, above.reason, above.share) == (None, NO_OVERLAP, 0)
    beyond = bd_quality(ANCHOR, Curve(SIZES * 100.0, QUALITY))
    assert (beyond.value, beyond.reason) == (None, NO_OVERLAP)


def test_a_single_rate_has_no_delta() -> None:
    one = Curve(np.array([50.0]), np.array([70.0]))
    assert bd_rate(ANCHOR, one).reason == TOO_FEW
    assert bd_quality(ANCHOR, one).reason == TOO_FEW


def test_the_front_leaves_out_what_a_cheaper_rate_equals_or_beats() -> None:
    curve = Curve(np.array([40.0, 10, 20, 30, 20]), np.array([75.0, 70, 73, 73, 71]))
    front = pareto_front(curve)
    assert front.sizes.tolist() == [10, 20, 40]
    assert front.quality.tolist() == [70, 73, 75]


def test_a_wobble_under_the_curve_does_not_change_bd_rate() -> None:
    worse = Curve(np.append(SIZES, 250.0) / 2, np.append(QUALITY, 75.0))
    assert bd_rate(ANCHOR, worse).value == pytest.approx(-50)


def test_a_wobble_under_the_curve_lowers_bd_accuracy() -> None:
    worse = Curve(np.append(SIZES, 250.0), np.append(QUALITY, 75.0))
    value = bd_quality(ANCHOR, worse).value
    assert value is not None
    assert value < -0.1


def test_bytes_for_a_quality_and_quality_for_bytes_are_each_others_inverse_at_the_rates() -> None:
    for size, quality in zip(SIZES, QUALITY, strict=True):
        assert quality_at(ANCHOR, size) == pytest.approx(quality)
        found = size_for(ANCHOR, quality)
        assert found is not None
        assert found[0] == pytest.approx(size)


def test_outside_of_what_was_measured_nothing_is_made_up() -> None:
    assert quality_at(ANCHOR, 19) is None
    assert quality_at(ANCHOR, 831) is None
    assert size_for(ANCHOR, 82) is None
    assert size_for(ANCHOR, 50) == (20, True)


def test_a_face_of_no_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        Curve(np.array([0.0, 1]), np.array([1.0, 2]))


CURVES = st.lists(
    st.tuples(st.integers(10, 2000), st.integers(4000, 9000)), min_size=3, max_size=9
).map(
    lambda points: Curve(
        np.array([size for size, _ in points], dtype=float),
        np.array([quality / 100 for _, quality in points]),
    )
)


@given(CURVES, CURVES)
def test_deltas_of_a_batch_are_those_of_the_package(anchor: Curve, test: Curve) -> None:
    for one, batch in ((bd_rate, bd_rate_draws), (bd_quality, bd_quality_draws)):
        expected = one(anchor, test).value
        (found,) = batch(_batch(anchor), _batch(test))
        if expected is None:
            assert np.isnan(found)
        else:
            assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)


def _batch(curve: Curve) -> Draws:
    return Draws(curve.sizes[None], curve.quality[None])


def test_rows_of_a_batch_do_not_see_each_other() -> None:
    tests = [Curve(SIZES / 2, QUALITY), Curve(SIZES, QUALITY[::-1]), Curve(SIZES, QUALITY + 30.0)]
    anchors = Draws(np.stack([SIZES] * 3), np.stack([QUALITY] * 3))
    draws = Draws(*(np.stack([getattr(t, name) for t in tests]) for name in ("sizes", "quality")))
    rates = bd_rate_draws(anchors, draws)
    assert rates[0] == pytest.approx(-50)
    # A falling curve is worth its cheapest rate alone, and that is no curve.
    assert np.isnan(rates[1:]).all()
    qualities = bd_quality_draws(anchors, draws)
    assert qualities[2] == pytest.approx(30)
    assert qualities[1] == pytest.approx(bd_quality(ANCHOR, tests[1]).value)


def test_the_package_itself_says_minus_50_percent() -> None:
    value = bjontegaard.bd_rate(SIZES, QUALITY, SIZES / 2, QUALITY, method="pchip")
    assert value == pytest.approx(-50)
