"""The counts by which time, track and box are coded: part of the format, never changed without the
version.

All are out of 65536. A device tells a box anew when it has moved by a sixteenth of its side, so
most stand and those that move move by some pixels; steps of time are even but for rounding and a
camera's jitter. What is told in full, once a chunk, is told by its bit length and the bits behind
the leading one; lengths are as likely as pictures of some megapixels, faces of some dozen to some
hundred pixels, epochs of minutes to weeks and tracks counted from 0 make them.
"""

from itertools import accumulate

from mien.range_coder import TOTAL
from mien.stir import STIRS, TOLD

USUAL_STEPS_MS = (33, 40, 50, 67, 100, 200, 500, 1000)
"""30, 25, 20, 15, 10, 5, 2 faces a second, and one."""


def _cdf(*counts: int) -> tuple[int, ...]:
    return (0, *accumulate(counts))


MOVES = _cdf(56000, 9536)
# By the bit length of a difference's magnitude.
MOVE = _cdf(9000, 9500, 12000, 14000, 11000, 6000, 2500, 900, 350, 150, 70, *[11] * 6)
RESIZE = _cdf(12000, 11000, 13000, 13000, 9500, 4500, 1600, 550, 200, 80, 40, *[11] * 6)
HEIGHT = _cdf(58000, 4500, 1200, 600, 450, 300, 200, 120, 70, 40, 20, *[6] * 6)
STEP = _cdf(
    *(42000, 14500, 4000, 1900, 1200, 800, 400, 250, 150, 90, 60, 40, 30, 20, 10),
    *([3] * 18),
    *([2] * 16),
)
# Where the step before was as expected.
EVEN_STEP = _cdf(
    *(57000, 5500, 1000, 600, 450, 320, 180, 120, 90, 60, 40, 30, 25, 20, 15),
    *([3] * 18),
    *([2] * 16),
)
# Of a chunk's first step: from which of the usual ones, and how far.
USUAL = _cdf(12000, 7000, 6500, 7500, 18000, 7500, 4000, 3036)
FROM_USUAL = _cdf(
    *(38000, 12500, 5500, 3000, 2000, 1400, 1000, 800, 560, 300, 150, 100, 60, 50, 30),
    *([3] * 18),
    *([2] * 16),
)
TRACK = _cdf(60000, 2768, 2768)
# Of a new track's id, from one more than the largest of the chunk so far: ids are counted up.
FROM_NEXT_ID = _cdf(
    *(40000, 6000, 5000, 4000, 3000, 2300, 1600, 1200, 800, 600, 400, 240, 140, 80, 64),
    *([4] * 20),
    *([2] * 16),
)
# Whether time stands still, by when the track was seen last: never in this chunk, in the frame
# of the face before (it is hardly there twice), in an earlier frame (its turn has come).
STANDS_IF_NEW = _cdf(32768, 32768)
STANDS_IF_HERE = _cdf(512, 65024)
STANDS_IF_EARLIER = _cdf(64000, 1536)
# By the bit length of a number.
COUNT = _cdf(20, 6000, 7500, 14500, 16500, 13000, 6000, 1856, *[20] * 8)
FIRST_ID = _cdf(
    *(5000, 8600, 7500, 7000, 6500, 6000, 5500, 5000, 4200, 3300, 2400, 1600, 1000, 600, 350),
    *(200, 120, 60),
    *([20] * 28),
    *([15] * 2),
    16,
)
FIRST_TIME = _cdf(
    *([96] * 8),
    *(190, 380, 670, 960, 1340, 1730, 2110, 2590, 3070, 3550, 3940, 4230, 4420, 4654, 4520),
    *(4420, 4230, 3940, 3550, 3070, 2500, 1920, 1340, 760, 380),
    *([19] * 16),
)
PLACE = _cdf(600, 200, 300, 500, 900, 2000, 5000, 11500, 17500, 16000, 8000, 2300, 500, 136, 60, 40)
SIDE = _cdf(30, 30, 30, 50, 190, 3000, 12500, 20500, 18000, 8000, 2500, 500, 106, 40, 30, 30)
# A place is left of the picture or above it.
OUTSIDE = _cdf(64400, 1136)

CDFS = (
    *(MOVES, MOVE, RESIZE, HEIGHT, STEP, EVEN_STEP, USUAL, FROM_USUAL),
    *(TRACK, FROM_NEXT_ID, STANDS_IF_NEW, STANDS_IF_HERE, STANDS_IF_EARLIER),
    *(COUNT, FIRST_ID, FIRST_TIME, PLACE, SIDE, OUTSIDE),
    *STIRS,
    *(counts for how in TOLD for counts in how),
)

assert all(cdf[-1] == TOTAL for cdf in CDFS)  # noqa: S101
