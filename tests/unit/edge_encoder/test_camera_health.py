"""The health of a camera, by its definition."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_encoder.capture.health import BUCKET_S, BUCKETS, MAX_REOPENS, CameraHealth

WINDOW_S = BUCKET_S * BUCKETS


class Watched:
    """A camera's health on a clock that the test moves."""

    def __init__(self, expected_fps: float | None = None) -> None:
        self.now_s = 1000.0
        self.health = CameraHealth(expected_fps, lambda: self.now_s)

    def deliver(self, seconds: float, fps: float = 10) -> None:
        for _ in range(round(seconds * fps)):
            self.health.frame()
            self.now_s += 1 / fps

    @property
    def figure(self) -> float:
        return self.health.report().health


def test_a_camera_that_never_gave_a_frame_has_none() -> None:
    camera = Watched()
    assert camera.figure == 0
    camera.now_s += 50
    assert camera.figure == 0
    assert not camera.health.report().delivering


def test_a_camera_that_delivers_is_healthy() -> None:
    camera = Watched(expected_fps=10)
    camera.deliver(700)
    report = camera.health.report()
    assert report.health == pytest.approx(1, abs=1e-3)
    assert report.delivering
    assert report.fps == pytest.approx(10, rel=0.01)


def test_the_share_of_time_counts() -> None:
    camera = Watched()
    camera.deliver(100)
    camera.health.lost()
    camera.now_s += 100
    assert camera.health.report().delivering_share == pytest.approx(0.5, abs=0.01)
    assert camera.figure == pytest.approx(0.5, abs=0.01)


def test_an_outage_without_a_word_counts_from_a_second_after_the_last_frame() -> None:
    camera = Watched()
    camera.deliver(9)
    camera.now_s += 11
    report = camera.health.report()
    assert report.delivering_share == pytest.approx(9.9 / 20)
    assert not report.delivering


def test_half_the_expected_rate_halves_it_and_an_outage_is_not_counted_in_the_rate_again() -> None:
    camera = Watched(expected_fps=20)
    camera.deliver(100, fps=10)
    assert camera.figure == pytest.approx(0.5, rel=0.01)
    camera.health.lost()
    camera.now_s += 100
    assert camera.figure == pytest.approx(0.25, rel=0.02)


def test_a_slow_camera_that_is_as_slow_as_expected_is_healthy() -> None:
    camera = Watched(expected_fps=0.1)
    camera.deliver(600, fps=0.1)
    assert camera.figure == pytest.approx(1, rel=0.05)


def test_more_than_the_expected_rate_is_no_better() -> None:
    camera = Watched(expected_fps=5)
    camera.deliver(60, fps=10)
    assert camera.figure == pytest.approx(1)


def test_each_reopening_takes_a_tenth() -> None:
    camera = Watched()
    camera.deliver(20)
    for count in range(1, MAX_REOPENS + 3):
        camera.health.reopened()
        assert camera.figure == pytest.approx(max(0, 1 - count / MAX_REOPENS))


def test_what_was_five_minutes_ago_is_forgiven() -> None:
    camera = Watched()
    camera.deliver(20)
    camera.health.lost()
    for _ in range(MAX_REOPENS):
        camera.health.reopened()
    camera.now_s += 30
    assert camera.figure == 0
    camera.deliver(WINDOW_S)
    assert camera.figure == pytest.approx(1)
    assert camera.health.report().reopens == 0


@given(
    st.lists(
        st.tuples(st.sampled_from(["frame", "lost", "reopened", "report"]), st.floats(0, 1000)),
        max_size=60,
    ),
    st.none() | st.floats(0.01, 1000),
)
def test_every_history_has_a_figure_from_0_to_1(
    history: list[tuple[str, float]], expected_fps: float | None
) -> None:
    camera = Watched(expected_fps)
    for event, seconds in history:
        getattr(camera.health, event)()
        camera.now_s += seconds
        report = camera.health.report()
        assert 0 <= report.health <= 1
        assert 0 <= report.delivering_share <= 1
        assert report.fps >= 0
