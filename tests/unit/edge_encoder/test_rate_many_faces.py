"""Rate control with several faces in view, over simulated lines, with the device's own backlog."""

import itertools
from collections.abc import Sequence

import pytest

from edge_encoder.epochs import Epochs
from edge_encoder.metrics import UPLINK_FULL, Metrics
from edge_encoder.rate_control import OperatingPoint, RateControl, RateSettings, ladder
from tests.support.simulated_line import (
    CREDITS,
    LEVEL_BYTES,
    SETTINGS,
    Moment,
    SimulatedDevice,
)
from tests.support.spooling import epoch, numbered

MAX_LAG_S = SETTINGS.rate.max_lag_s
# From when a line has become too thin, until answers are in time again.
CONVERGED_S = 90.0
# Looking for more than the line carries costs so long a lag, time and again.
TRY_S = 25.0


def late_spells(seen: Sequence[Moment], after_s: float = 0.0) -> list[float]:
    """Seconds of each time for which answers were late."""
    groups = itertools.groupby(
        (moment for moment in seen if moment.at_s >= after_s), lambda m: m.lag_s > MAX_LAG_S
    )
    spells = [list(moments) for late, moments in groups if late]
    return [spell[-1].at_s - spell[0].at_s for spell in spells]


def at(seen: Sequence[Moment], at_s: float) -> Moment:
    return next(moment for moment in seen if moment.at_s >= at_s - 1e-6)


def cost(point: OperatingPoint, tracks: int) -> float:
    control = RateControl([point], LEVEL_BYTES[::-1], 175.0, RateSettings(), 0.0)
    return control.bytes_per_s(point, 10.0 * tracks, tracks)


def test_a_rung_costs_what_all_faces_in_view_do_with_the_chunks_that_they_fill() -> None:
    every = OperatingPoint(0, 0.5, 0.0, 8)
    assert cost(every, 1) == pytest.approx(2 * 175 + 10 * 6.0)
    assert cost(every, 8) == pytest.approx(10 * 175 + 80 * 6.0), "eight faces close a chunk"
    rare = OperatingPoint(3, 2.0, 1.0, 32)
    assert cost(rare, 8) == pytest.approx(0.5 * 175 + 8 * 2.8), "one a second of each track"


def test_longer_chunks_have_room_in_proportion_and_no_more_than_a_server_takes() -> None:
    points = ladder((6.0,), 0.5, 2.0, 1.0, chunk_faces=8, max_chunk_faces=20)
    assert [point.chunk_faces for point in points[:3]] == [8, 16, 20]


@pytest.mark.parametrize(
    ("tracks", "bytes_per_s"),
    [(1, 200), (2, 200), (4, 800), (4, 200), (8, 800), (8, 200), (16, 2000), (16, 200)],
)
def test_answers_are_soon_in_time_again_however_many_faces_are_in_view(
    tracks: int, bytes_per_s: float
) -> None:
    seen = SimulatedDevice(lambda _: bytes_per_s, lambda _: tracks).run(300)
    assert max(late_spells(seen), default=0) <= CONVERGED_S
    assert max(late_spells(seen, CONVERGED_S), default=0) <= TRY_S
    assert at(seen, 299).lost == at(seen, CONVERGED_S).lost, "nothing is lost after that"


@pytest.mark.parametrize("tracks", [1, 4, 16])
def test_a_line_that_shrinks_and_grows_is_followed(tracks: int) -> None:
    line = SimulatedDevice(lambda t: 200.0 if 30 <= t < 180 else 6000.0, lambda _: tracks)
    seen = line.run(300)
    assert max(late_spells(seen)) <= CONVERGED_S
    assert at(seen, 170).rung > 0
    assert at(seen, 299).rung == 0


@pytest.mark.parametrize("bytes_per_s", [170.0, 800.0])
def test_faces_that_come_are_made_room_for_and_those_that_go_leave_it(bytes_per_s: float) -> None:
    line = SimulatedDevice(lambda _: bytes_per_s, lambda t: 8 if 60 <= t < 180 else 1)
    seen = line.run(300)
    assert max(late_spells(seen)) <= CONVERGED_S
    assert at(seen, 170).rung > at(seen, 59).rung
    assert at(seen, 299).rung <= at(seen, 59).rung


@pytest.mark.parametrize("tracks", [1, 8])
def test_a_line_that_carries_no_rung_loses_the_oldest_and_lag_is_bounded(tracks: int) -> None:
    bytes_per_s = 50.0
    seen = SimulatedDevice(lambda _: bytes_per_s, lambda _: tracks).run(300)
    chunk_s = (175 + 2 * tracks * LEVEL_BYTES[0]) / bytes_per_s
    bound_s = 5 * MAX_LAG_S + (CREDITS + 2) * chunk_s
    assert max(moment.lag_s for moment in seen if moment.at_s > 120) <= bound_s
    assert at(seen, 299).lost > at(seen, 200).lost > 0, "counted, and not only at first"


def test_what_is_dropped_for_its_age_is_counted() -> None:
    metrics = Metrics()
    epochs = Epochs(epoch(1), 8, metrics)
    for number in range(3):
        epochs.offer(numbered(number, faces=2))
    epochs.shed(-1.0)
    assert metrics.drops[UPLINK_FULL] == 4
    assert epochs.backlog.waiting == 1
