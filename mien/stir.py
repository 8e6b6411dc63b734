"""How much of a face has changed since the one before of its track: told before its symbols.

    stir        STILL   | 1 to 4 | 5 to 12 | 13 to 32 | AFRESH
    positions   none                                    33 and more

A still face has nothing behind its stir. One of GIVEN says whether it is told by the one before, by
tables for just so much change, or afresh, as a track's first face and one of AFRESH are: where few
symbols are not zero, another person's face has few changes too. The stir is a function of the
symbols, and a reader refuses any other.
"""

from collections.abc import Sequence
from itertools import accumulate

STILL, AFRESH = 0, 4
GIVEN = (1, 2, 3)
LARGEST = (0, 4, 12, 32)
"""Of each stir but AFRESH the largest number of changed positions."""
UNKNOWN = 5
"""The stir of a track's first face in a chunk."""


def stir_of(changes: int) -> int:
    """Return the stir of a face with so many changed positions."""
    stir = STILL
    while stir < AFRESH and changes > LARGEST[stir]:
        stir += 1
    return stir


def _cdf(*counts: int) -> tuple[int, ...]:
    return (0, *accumulate(counts))


BY_BEFORE, ALL_AFRESH = 0, 1
"""How a face of one of GIVEN is told."""

# Counts out of 65536, by the stir of the face before. Part of the format: never change them
# without the version.
STIRS: Sequence[tuple[int, ...]] = (
    _cdf(38000, 22000, 4300, 1000, 236),
    _cdf(17000, 33000, 13000, 2300, 236),
    _cdf(5000, 20000, 30000, 10000, 536),
    _cdf(1600, 6000, 20000, 33000, 4936),
    _cdf(1000, 1500, 3000, 14000, 46036),
    _cdf(20000, 24000, 13000, 6000, 2536),
)
TOLD: Sequence[Sequence[tuple[int, ...]]] = (
    (_cdf(64500, 1036), _cdf(61000, 4536), _cdf(52000, 13536)),
    (_cdf(20000, 45536), _cdf(8000, 57536), _cdf(4000, 61536)),
)
"""How a face of each of GIVEN is told: by how the face before was, and by its stir. A track's first
face counts as BY_BEFORE here: what comes after it is the same person."""
