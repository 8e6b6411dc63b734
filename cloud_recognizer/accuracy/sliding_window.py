"""What a sliding window knows of the answers of one bundle to one group of devices.

add(face) ─▶ newest of BUCKETS buckets ─▶ summary(): estimate and drift over all of them

A bucket is a few dozen numbers; the oldest goes when a new one begins. Nothing of a face is kept.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import log
from typing import Final

from mien.calibration import CONFIDENCE_BINS, Calibration, confidence_bin

# So the window is between 11/12 and all of its length: the newest bucket is still filling.
BUCKETS: Final = 12
# Added to every bin of both sides, so that an empty one is no infinity.
SMOOTHING: Final = 0.5

# What the current window is compared with.
BUNDLE: Final = "bundle"
FIRST_WINDOW: Final = "first_window"


def stability_index(reference: Sequence[int], current: Sequence[int]) -> float:
    """Population stability index of two histograms: Σ (q - p) · ln(q / p) over their bins.

    The shares p and q are (count + SMOOTHING) / (total + bins · SMOOTHING). 0 for equal shares;
    by custom 0.1 is worth a look and 0.25 a large shift.
    """
    p, q = _shares(reference), _shares(current)
    return sum((b - a) * log(b / a) for a, b in zip(p, q, strict=True))


def _shares(counts: Sequence[int]) -> list[float]:
    total = sum(counts) + len(counts) * SMOOTHING
    return [(count + SMOOTHING) / total for count in counts]


@dataclass(slots=True)
class Counts:
    """Faces by expression and by confidence, and those of them that people have labelled."""

    expressions: list[int]
    confidences: list[int] = field(default_factory=lambda: [0] * CONFIDENCE_BINS)
    confidence_sum: float = 0.0
    labelled: int = 0
    agreed: int = 0
    labelled_confidence_sum: float = 0.0

    @property
    def faces(self) -> int:
        """How many were counted."""
        return sum(self.expressions)

    def include(self, other: "Counts") -> None:
        """Add what others have counted."""
        for mine, theirs in (
            (self.expressions, other.expressions),
            (self.confidences, other.confidences),
        ):
            mine[:] = [a + b for a, b in zip(mine, theirs, strict=True)]
        self.confidence_sum += other.confidence_sum
        self.labelled += other.labelled
        self.agreed += other.agreed
        self.labelled_confidence_sum += other.labelled_confidence_sum


@dataclass(frozen=True, slots=True)
class Summary:
    """A window's figures; None where there is nothing, or too little, to say.

    estimate: mean calibrated confidence. measured: share of the labelled faces that were answered
    as people say; labelled_estimate: what the estimate is on those same faces.
    """

    faces: int
    estimate: float | None
    labelled: int
    measured: float | None
    labelled_estimate: float | None
    reference: str | None
    expression_drift: float | None
    confidence_drift: float | None


class SlidingWindow:
    """The last `length_s` seconds, and what they are compared with.

    expressions: how many the bundle has. calibration: the bundle's; its counts are the reference
    where they are of `min_faces` faces, else the first full window with so many is. Times are of
    any clock that does not go back.
    """

    def __init__(
        self,
        expressions: int,
        calibration: Calibration | None,
        *,
        length_s: float,
        min_faces: int,
        started_s: float,
    ) -> None:
        self._expressions = expressions
        self._bucket_s = length_s / BUCKETS
        self._min_faces = min_faces
        self._started_s = started_s
        self._newest = 0
        self._buckets: deque[tuple[int, Counts]] = deque([(0, self._empty())], BUCKETS)
        self._reference: tuple[str, Counts] | None = None
        if calibration is not None and sum(calibration.expressions) >= min_faces:
            counts = Counts([*calibration.expressions], [*calibration.confidences])
            self._reference = BUNDLE, counts

    def add(self, now_s: float, expression: int, confidence: float) -> None:
        """Count a face. expression: its index. confidence: calibrated, from 0 to 1."""
        self._advance(now_s)
        counts = self._buckets[-1][1]
        counts.expressions[expression] += 1
        counts.confidences[confidence_bin(confidence)] += 1
        counts.confidence_sum += confidence

    def label(self, now_s: float, confidence: float, agreed: bool) -> None:
        """Count a label, at the time when it came. confidence: of the answer it is about."""
        self._advance(now_s)
        counts = self._buckets[-1][1]
        counts.labelled += 1
        counts.agreed += agreed
        counts.labelled_confidence_sum += confidence

    def summary(self, now_s: float) -> Summary:
        """The figures of the window that ends now."""
        self._advance(now_s)
        total = self._total()
        drifts: list[float | None] = [None, None]
        if self._reference is not None and total.faces >= self._min_faces:
            reference = self._reference[1]
            drifts = [
                stability_index(reference.expressions, total.expressions),
                stability_index(reference.confidences, total.confidences),
            ]
        return Summary(
            faces=total.faces,
            estimate=_ratio(total.confidence_sum, total.faces),
            labelled=total.labelled,
            measured=_ratio(total.agreed, total.labelled),
            labelled_estimate=_ratio(total.labelled_confidence_sum, total.labelled),
            reference=self._reference[0] if self._reference else None,
            expression_drift=drifts[0],
            confidence_drift=drifts[1],
        )

    def _advance(self, now_s: float) -> None:
        index = int((now_s - self._started_s) / self._bucket_s)
        if index <= self._newest:
            return
        if self._reference is None and index >= BUCKETS:
            # Once all of the buckets that are still here are full: the next one empties the first.
            total = self._total()
            if total.faces >= self._min_faces:
                self._reference = FIRST_WINDOW, total
        self._newest = index
        while self._buckets and self._buckets[0][0] <= index - BUCKETS:
            self._buckets.popleft()
        self._buckets.append((index, self._empty()))

    def _total(self) -> Counts:
        total = self._empty()
        for _, counts in self._buckets:
            total.include(counts)
        return total

    def _empty(self) -> Counts:
        return Counts([0] * self._expressions)


def _ratio(part: float, whole: int) -> float | None:
    return part / whole if whole else None
