"""What a window says, against figures that were computed by hand."""

from math import log

import pytest

from cloud_recognizer.accuracy.sliding_window import BUCKETS, SlidingWindow, stability_index
from mien.calibration import Calibration

LENGTH_S = 120.0  # buckets of 10 s


def window(calibration: Calibration | None = None, min_faces: int = 4) -> SlidingWindow:
    return SlidingWindow(2, calibration, length_s=LENGTH_S, min_faces=min_faces, started_s=1000.0)


def test_the_stability_index_of_two_histograms() -> None:
    # (9.5, 0.5) / 10 against (4.5, 5.5) / 10, half a face more in each bin:
    # (0.45 - 0.95) ln (0.45 / 0.95) + (0.55 - 0.05) ln (0.55 / 0.05)
    expected = -0.5 * log(0.45 / 0.95) + 0.5 * log(11)
    assert expected == pytest.approx(1.572554, abs=1e-6)
    assert stability_index([9, 0], [4, 5]) == pytest.approx(expected, rel=1e-12)
    assert stability_index([4, 5], [9, 0]) == pytest.approx(expected, rel=1e-12)
    assert stability_index([4, 5], [4, 5]) == 0
    assert stability_index([0, 0], [0, 0]) == 0


def test_the_estimate_is_the_mean_confidence() -> None:
    window_ = window()
    assert window_.summary(1000.0).estimate is None
    for confidence in (0.5, 0.75, 1.0):
        window_.add(1001.0, 0, confidence)
    summary = window_.summary(1002.0)
    assert (summary.faces, summary.estimate) == (3, 0.75)


def test_faces_leave_the_window_a_bucket_at_a_time() -> None:
    window_ = window()
    window_.add(1005.0, 0, 0.5)
    window_.add(1015.0, 0, 0.9)
    assert window_.summary(1119.9).faces == 2
    assert window_.summary(1120.0).estimate == 0.9
    assert window_.summary(1130.0).faces == 0
    assert window_.summary(1e6).estimate is None


def test_the_manifest_is_the_reference_where_it_has_faces_enough() -> None:
    calibration = Calibration(1.0, (9, 0), (0, 0, 0, 0, 0, 0, 0, 0, 0, 9))
    window_ = window(calibration)
    for number in range(9):
        assert window_.summary(1001.0).expression_drift is None or number >= 4
        window_.add(1001.0, int(number >= 4), 0.95)
    summary = window_.summary(1001.0)
    assert summary.reference == "bundle"
    assert summary.expression_drift == stability_index([9, 0], [4, 5])
    assert summary.confidence_drift == 0
    too_few = window(calibration, min_faces=10)
    assert too_few.summary(1001.0).reference is None


def test_a_window_below_the_least_number_of_faces_says_nothing_of_drift() -> None:
    window_ = window(Calibration(1.0, (9, 0), (9,) + (0,) * 9))
    for count in range(1, 5):
        window_.add(1001.0, 0, 0.95)
        assert (window_.summary(1001.0).expression_drift is not None) == (count >= 4)


def test_else_the_first_full_window_with_faces_enough_is() -> None:
    window_ = window()
    for second in (5, 25, 45):  # three faces: the first window has too few
        window_.add(1000.0 + second, 0, 0.95)
    assert window_.summary(1121.0).reference is None
    for second in (121, 125, 129):
        window_.add(1000.0 + second, 0, 0.95)
    # At 130 s the window of 10 to 130 s is full: five faces of expression 0.
    assert window_.summary(1129.9).reference is None
    for _ in range(5):
        window_.add(1131.0, 1, 0.55)
    summary = window_.summary(1131.0)
    assert summary.reference == "first_window"
    # The reference's five are still in the window, beside the five new ones.
    assert summary.faces == 10
    assert summary.expression_drift == stability_index([5, 0], [5, 5])
    # 0.95 is in the last bin and 0.55 in the sixth.
    assert summary.confidence_drift == stability_index(
        [0] * 9 + [5], [0, 0, 0, 0, 0, 5, 0, 0, 0, 5]
    )


def test_a_reference_stays_when_its_faces_have_left() -> None:
    window_ = window()
    for _ in range(4):
        window_.add(1001.0, 0, 0.95)
    for _ in range(4):
        window_.add(9001.0, 1, 0.95)
    summary = window_.summary(9001.0)
    assert (summary.faces, summary.reference) == (4, "first_window")
    assert summary.expression_drift == stability_index([4, 0], [0, 4])


def test_labels_are_measured_beside_the_estimate_of_the_same_faces() -> None:
    window_ = window()
    window_.add(1001.0, 0, 0.95)
    assert window_.summary(1001.0).measured is None
    for confidence, agreed in ((0.5, True), (0.75, False), (1.0, True), (0.75, False)):
        window_.label(1001.0, confidence, agreed)
    summary = window_.summary(1001.0)
    assert (summary.labelled, summary.measured, summary.labelled_estimate) == (4, 0.5, 0.75)
    assert window_.summary(1121.0).labelled == 0


def test_a_year_of_faces_takes_no_more_than_its_buckets() -> None:
    window_ = window()
    for day in range(365):
        window_.add(1000.0 + 86_400 * day, 0, 0.95)
    for second in range(10_000):
        window_.add(4e7 + second, 0, 0.95)
    assert len(window_._buckets) == BUCKETS
