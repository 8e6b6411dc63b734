"""Accuracy's figures for Prometheus, made when they are asked for, since time alone changes them.

What is not known has no series: not a bundle that is gone, nor a drift of too few faces.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cloud_recognizer.accuracy.estimate import Accuracy, GroupFigures

OF: Final = ("expression", "confidence")
"""What drift is shown of."""
_BY: Final = ("bundle_id", "group")
_GAUGES = (
    ("accuracy_window_faces", "Faces in the window of accuracy_window_s"),
    ("accuracy_estimate", "Mean calibrated confidence in the window: accuracy without labels"),
    ("accuracy_labelled_faces", "Faces in the window that people have labelled"),
    ("accuracy_measured", "Share of these that were answered as people say"),
    ("accuracy_labelled_estimate", "Mean calibrated confidence of these"),
)


class AccuracyCollector(Collector):
    """Reads an Accuracy at every scrape."""

    def __init__(self, accuracy: Accuracy) -> None:
        self._accuracy = accuracy

    def describe(self) -> Iterable[Metric]:
        """The same families without a value, so that no other metric may have their names."""
        return accuracy_families()

    def collect(self) -> Iterable[Metric]:
        """Every family, with the values that are known now."""
        return accuracy_families(self._accuracy.figures())


def accuracy_families(figures: Sequence[GroupFigures] = ()) -> Iterator[Metric]:
    """Every family, with these values."""
    values = [_gauges_of(row) for row in figures]
    for position, (name, text) in enumerate(_GAUGES):
        gauge = GaugeMetricFamily(f"mien_cloud_{name}", text, labels=_BY)
        for row, known in zip(figures, values, strict=True):
            if (value := known[position]) is not None:
                gauge.add_metric((row.bundle_id, row.group), value)
        yield gauge
    yield _drift(figures)
    for name, text, attribute in (
        ("labelled_faces", "Faces that people have labelled", "labelled"),
        ("labelled_agreed", "Of these, answered as people say", "agreed"),
    ):
        counter = CounterMetricFamily(f"mien_cloud_{name}", text, labels=_BY)
        for row in figures:
            counter.add_metric((row.bundle_id, row.group), getattr(row, attribute))
        yield counter


def _gauges_of(row: GroupFigures) -> tuple[float | None, ...]:
    window = row.window
    return (
        window.faces,
        window.estimate,
        window.labelled,
        window.measured,
        window.labelled_estimate,
    )


def _drift(figures: Sequence[GroupFigures]) -> GaugeMetricFamily:
    drift = GaugeMetricFamily(
        "mien_cloud_drift_psi",
        "Population stability index of the window against its reference",
        labels=(*_BY, "of", "reference"),
    )
    for row in figures:
        window = row.window
        for of, value in zip(OF, (window.expression_drift, window.confidence_drift), strict=True):
            if value is not None and window.reference is not None:
                drift.add_metric((row.bundle_id, row.group, of, window.reference), value)
    return drift
