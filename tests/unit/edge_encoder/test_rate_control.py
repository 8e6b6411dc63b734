"""Walking the ladder of operating points: on its own, and over a link that shrinks and grows."""

import itertools
from collections import deque
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_encoder.rate_control import OperatingPoint, RateControl, RateSettings, Seen, ladder
from mien.errors import ConfigError

LEVEL_BYTES = (40.0, 28.0, 18.0, 12.0, 8.0, 4.0)
CHUNK_BYTES = 100.0
FRAME_S = 0.1


def climb() -> RateControl:
    points = ladder(LEVEL_BYTES, 0.5, 2.0, 1.0)
    return RateControl(points, LEVEL_BYTES, CHUNK_BYTES, RateSettings(), now_s=0.0)


def watch(
    control: RateControl, start_s: float, seconds: float, lag_s: float, carried: float = 1000.0
) -> list[int]:
    """Ten faces a second over a link of so many bytes a second; the rungs, by quarters."""
    rungs = []
    for tick in range(int(seconds * 4)):
        now_s = start_s + tick / 4
        control.observe(now_s, Seen(lag_s, False, int(carried * now_s), 10.0))
        rungs.append(control.rung)
    return rungs


def test_quality_goes_first_then_promptness_then_faces() -> None:
    points = ladder((40, 20, 8), chunk_seconds=0.5, max_chunk_s=2.0, min_faces_per_s=1.0)
    assert points[:3] == tuple(OperatingPoint(level, 0.5, 0.0) for level in range(3))
    assert [point.chunk_seconds for point in points[3:5]] == [1.0, 2.0]
    assert points[-1] == OperatingPoint(2, 2.0, 1.0)
    assert all(a.face_period_s <= b.face_period_s for a, b in itertools.pairwise(points))


@given(
    st.lists(st.floats(1, 100), min_size=1, max_size=8),
    st.floats(0, 10),
    st.floats(0.05, 10),
    st.floats(0.05, 30),
    st.floats(0, 120),
)
def test_no_point_of_any_ladder_is_beyond_what_was_allowed(
    sizes: list[float], chunk_s: float, max_chunk_s: float, per_s: float, target: float
) -> None:
    sizes = sorted(sizes, reverse=True)
    points = ladder(sizes, chunk_s, max_chunk_s, per_s, target)
    assert all(point.chunk_seconds <= max_chunk_s for point in points)
    assert all(point.face_period_s <= 1 / per_s for point in points)
    affordable = [size for size in sizes if size <= target]
    if target and affordable:
        assert all(sizes[point.level] <= target for point in points)


def test_a_target_that_no_level_meets_takes_the_cheapest() -> None:
    assert {point.level for point in ladder((40, 20), 0.5, 2.0, 1.0, target_face_bytes=3)} == {1}


def test_late_answers_step_down_to_what_the_link_carries() -> None:
    control = climb()
    assert watch(control, 0.0, 1.5, lag_s=3.0, carried=400.0) == [0] * 6, "watched before judged"
    watch(control, 1.5, 1.0, lag_s=3.0, carried=400.0)
    costs = [control.bytes_per_s(point, 10.0) for point in ladder(LEVEL_BYTES, 0.5, 2.0, 1.0)]
    assert costs[control.rung] <= 320 < costs[control.rung - 1]


def test_a_queue_that_drains_is_left_to_drain() -> None:
    control = climb()
    watch(control, 0.0, 3.0, lag_s=3.0, carried=400.0)
    rung = control.rung
    assert set(watch(control, 3.0, 20.0, lag_s=3.0, carried=400.0)) == {rung}


def test_a_link_that_carries_nothing_leaves_the_last_rung() -> None:
    control = climb()
    watch(control, 0.0, 3.0, lag_s=3.0, carried=0.0)
    assert control.point == ladder(LEVEL_BYTES, 0.5, 2.0, 1.0)[-1]


def test_one_late_chunk_among_prompt_ones_changes_nothing() -> None:
    control = climb()
    for tick in range(40):
        control.observe(tick / 4, Seen(5.0 if tick % 4 else 0.1, False, tick * 10, 10.0))
    assert control.rung == 0


def test_prompt_answers_step_up_after_patience_and_not_before() -> None:
    control = climb()
    watch(control, 0.0, 3.0, lag_s=3.0, carried=500.0)
    rung = control.rung
    rungs = watch(control, 3.0, 20.0, lag_s=0.1)
    assert rungs[:19] == [rung] * 19
    assert rungs[20] == rung - 1
    assert rungs[-1] == 0


def test_chunks_that_wait_for_credits_earn_no_step_up() -> None:
    control = climb()
    watch(control, 0.0, 3.0, lag_s=3.0, carried=400.0)
    rung = control.rung
    for tick in range(100):
        control.observe(3.0 + tick, Seen(0.1, True, 4000, 10.0))
    assert control.rung == rung


def test_a_connection_that_was_lost_says_nothing_about_the_link() -> None:
    control = climb()
    for tick in range(40):
        control.pause(tick / 4, 0)
    watch(control, 10.0, 1.0, lag_s=9.0, carried=0.0)
    assert control.rung == 0, "not judged before a window of the new connection is over"


def test_a_rung_that_was_given_up_is_tried_again_after_twice_as_long() -> None:
    points = ladder((60.0, 20.0), 0.5, 0.5, 10.0)[:2]
    control = RateControl(points, (60.0, 20.0), CHUNK_BYTES, RateSettings(), now_s=0.0)
    waits, now_s = [], 0.0
    for _ in range(8):
        while not control.rung:
            now_s += 0.25
            control.observe(now_s, Seen(3.0, False, int(510 * now_s), 10.0))
        given_up_s = now_s
        while control.rung:
            now_s += 0.25
            control.observe(now_s, Seen(0.1, False, int(510 * now_s), 10.0))
        waits.append(now_s - given_up_s)
    assert waits == pytest.approx([5, 10, 20, 40, 80, 160, 300, 300], abs=0.5)


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="patience_s"):
        RateSettings(patience_s=10, max_patience_s=5)


def run(link: Callable[[float], float], seconds: float) -> list[tuple[float, int, float]]:
    """A camera of ten faces a second over a link of so many bytes a second at each time.

    Returns time, rung and lag, ten times a second.
    """
    control, seen = climb(), []
    waiting: deque[tuple[float, float, float]] = deque()  # when offered, bytes to carry, of bytes
    answered = 0.0
    chunk: list[float] = []
    last_face_s = -1.0
    for tick in range(int(seconds / FRAME_S)):
        now_s = tick * FRAME_S
        point = control.point
        if now_s - last_face_s >= max(point.face_period_s, FRAME_S) - 1e-6:
            chunk.append(now_s)
            last_face_s = now_s
        if chunk and now_s - chunk[0] >= point.chunk_seconds - 1e-6:
            size = CHUNK_BYTES + len(chunk) * LEVEL_BYTES[point.level]
            waiting.append((now_s, size, size))
            chunk = []
        budget = link(now_s) * FRAME_S
        while waiting and budget > 0:
            offered_s, left, size = waiting.popleft()
            if left > budget:
                waiting.appendleft((offered_s, left - budget, size))
            else:
                answered += size
            budget -= left
        lag_s = now_s - waiting[0][0] if waiting else 0.0
        control.observe(now_s, Seen(lag_s, False, int(answered), 1 / FRAME_S))
        seen.append((now_s, control.rung, lag_s))
    return seen


def given_up(seen: list[tuple[float, int, float]], after_s: float) -> int:
    """How often a rung was left downwards."""
    rungs = [rung for now_s, rung, _ in seen if now_s >= after_s]
    return sum(a < b for a, b in itertools.pairwise(rungs))


def test_a_link_that_shrinks_and_grows_is_followed_and_left_no_debt() -> None:
    seen = run(lambda now_s: 1000.0 if not 60 <= now_s < 240 else 150.0, 420)
    at = {round(now_s): (rung, lag_s) for now_s, rung, lag_s in seen}
    assert at[59][0] == 0
    assert at[230][0] >= 4, "quality went"
    assert at[419] == (0, pytest.approx(0, abs=0.5)), "all of it came back"
    assert max(lag_s for now_s, _, lag_s in seen if 120 <= now_s < 240) < 6


@pytest.mark.parametrize("link", [100.0, 200.0, 300.0, 450.0])
def test_a_link_that_does_not_change_is_not_asked_again_and_again(link: float) -> None:
    seen = run(lambda now_s: link, 1200)
    assert given_up(seen, after_s=600) <= 3
    assert max(lag_s for now_s, _, lag_s in seen if now_s >= 300) < 5
