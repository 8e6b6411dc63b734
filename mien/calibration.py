"""How sure a bundle's classifier is, put right by one temperature, and counted in fixed bins.

The trainer fits and counts on validation faces, the recognizer counts on devices' faces: both by
what stands here, so that the two may be compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

# Confidences from 0 to 1 in bins of a tenth; 1 belongs to the last.
CONFIDENCE_BINS: Final = 10
MIN_TEMPERATURE: Final = 0.05
MAX_TEMPERATURE: Final = 20.0


@dataclass(frozen=True, slots=True)
class Calibration:
    """What validation faces said of a classifier.

    temperature: of the softmax, beside any that is in the network already.
    expressions: how many faces were answered with each, in the bundle's order.
    confidences: how many faces had a calibrated confidence in each of CONFIDENCE_BINS.
    """

    temperature: float
    expressions: tuple[int, ...]
    confidences: tuple[int, ...]


def confidence(probabilities: Sequence[float], temperature: float) -> float:
    """The largest of the probabilities after softmax(log p / temperature) (Guo et al., 2017).

    From 0 to 1; 0, no confidence, where one of them is not a number or none is above 0.
    """
    top = max(probabilities)
    if not top > 0:
        return 0.0
    if temperature != 1:
        inverse = 1 / temperature
        top = 1 / sum((p / top) ** inverse for p in probabilities)
    return min(top, 1.0) if top > 0 else 0.0


def confidence_bin(value: float) -> int:
    """Which of CONFIDENCE_BINS a confidence from 0 to 1 belongs to."""
    return min(int(value * CONFIDENCE_BINS), CONFIDENCE_BINS - 1)
