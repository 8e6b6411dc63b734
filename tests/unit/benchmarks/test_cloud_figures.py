"""What the load benchmark reads out of the server's histograms."""

import math

import pytest

from benchmarks.processes import quantile

BUCKETS = [(1.0, 10.0), (2.0, 30.0), (4.0, 40.0), (math.inf, 40.0)]


@pytest.mark.parametrize(
    ("share", "expected"), [(0.25, 1.0), (0.5, 1.5), (0.75, 2.0), (0.875, 3.0), (1.0, 4.0)]
)
def test_a_quantile_lies_inside_its_bucket(share: float, expected: float) -> None:
    assert quantile(reversed(BUCKETS), share) == pytest.approx(expected)


def test_beyond_the_last_bound_the_bound_is_all_that_is_known() -> None:
    assert quantile([(1.0, 1.0), (math.inf, 100.0)], 0.99) == 1.0
