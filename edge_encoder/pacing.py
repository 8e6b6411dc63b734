"""Makes the encoder do what the rate control says, by what the uplink shows.

Only for cameras: a file waits for the uplink, so nothing of it is ever late.
"""

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from edge_encoder.chunker import Chunk, Chunker
from edge_encoder.config import MAX_CHUNK_FACES
from edge_encoder.faces import FaceEncoder
from edge_encoder.metrics import Metrics
from edge_encoder.rate_control import OperatingPoint, RateControl, RateSettings, Seen, ladder
from edge_encoder.uplink import Uplink
from mien.bundle import Bundle

_log = logging.getLogger(__name__)

# What a chunk costs up beside its payload, TLS, TCP and IP included: docs/adr/0019, measured by
# `python -m benchmarks wire`.
CHUNK_WIRE_BYTES: Final = 175
# Of a bundle whose manifest does not say what a face costs.
USUAL_FACE_BYTES: Final = 30.0
# Faces a second are those of the last seconds.
MEMORY_S: Final = 2.0
# Of the lag that is too much, so many times a chunk may wait unsent.
STALE_LAGS: Final = 5


@dataclass(frozen=True)
class PaceSettings:
    """chunk_faces, chunk_seconds: where the link allows them. max_chunk_s: a face never waits
    longer for others. min_faces_per_s: of a track, however slow the link. quality_level: the one
    that is used where the link allows it; None for the bundle's own.
    """

    chunk_faces: int
    chunk_seconds: float
    max_chunk_s: float
    min_faces_per_s: float
    rate: RateSettings
    quality_level: int | None = None


class Pacing:
    """Steers one chunker and one encoder.

    level_bytes: what a face costs on average at each quality level, from the lowest to the one that
    is used where the link allows it.
    """

    def __init__(
        self,
        settings: PaceSettings,
        level_bytes: Sequence[float],
        chunker: Chunker,
        encoder: FaceEncoder,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._clock, self._metrics = settings, clock, metrics
        self._chunker, self._encoder = chunker, encoder
        self._sizes = tuple(reversed(level_bytes))
        self._target_bytes, self._max_chunk_faces = 0.0, MAX_CHUNK_FACES
        self._control = self._controlling()
        self._answered_bytes = 0
        self._faces_per_s = self._tracks = 0.0
        self._counted_s = self._connected_s = clock()

    def _controlling(self) -> RateControl:
        settings = self._settings
        points = ladder(
            *(self._sizes, settings.chunk_seconds, settings.max_chunk_s, settings.min_faces_per_s),
            *(self._target_bytes, settings.chunk_faces, self._max_chunk_faces),
        )
        return RateControl(points, self._sizes, CHUNK_WIRE_BYTES, settings.rate, self._clock())

    @property
    def stale_s(self) -> float:
        """Seconds after which a chunk that waits unsent is worth less than those behind it.

        Infinite until a connection is that old: what an outage has gathered gets so long.
        """
        limit_s = STALE_LAGS * self._settings.rate.max_lag_s
        return limit_s if self._clock() - self._connected_s >= limit_s else math.inf

    def aim(self, target_face_bytes: float, max_chunk_faces: int = MAX_CHUNK_FACES) -> None:
        """Use no level that costs more a face while one does not, as a server asks; 0: any.

        max_chunk_faces: the most that it takes in a chunk. What was learnt of the link is learnt
        anew: its ladder is another one.
        """
        max_chunk_faces = min(max(max_chunk_faces, 1), MAX_CHUNK_FACES)
        if (target_face_bytes, max_chunk_faces) != (self._target_bytes, self._max_chunk_faces):
            self._target_bytes, self._max_chunk_faces = target_face_bytes, max_chunk_faces
            self._control = self._controlling()
            self._apply(self._control.point)

    def follow(self, bundle: Bundle) -> None:
        """Steer by the figures of the bundle that is used now; one with others begins anew."""
        sizes = tuple(reversed(level_bytes(bundle, self._settings.quality_level)))
        if sizes != self._sizes:
            self._sizes = sizes
            self._control = self._controlling()
            self._apply(self._control.point)

    def answered(self, chunk: Chunk) -> None:
        """An answer came."""
        self._answered_bytes += len(chunk.payload) + CHUNK_WIRE_BYTES

    def look(self, uplink: Uplink, faces: int) -> None:
        """After a frame with so many faces, before any were left out: decide what to do next."""
        now_s = self._clock()
        self._count(now_s, faces)
        lag_s, before = uplink.lag_s, self._control.rung
        if not uplink.connected:
            self._connected_s = now_s
            self._control.pause(now_s, self._answered_bytes)
            return
        seen = Seen(
            *(lag_s, uplink.held_back, self._answered_bytes, self._faces_per_s, self._tracks)
        )
        point = self._control.observe(now_s, seen)
        if self._control.rung == before:
            return
        self._apply(point)
        _log.info(
            *("answers lag %.1f s: level %d, chunks of %g s, a face a track every %g s", lag_s),
            *(len(self._sizes) - 1 - point.level, point.chunk_seconds, point.face_period_s),
        )

    def _apply(self, point: OperatingPoint) -> None:
        level = len(self._sizes) - 1 - point.level
        self._chunker.pace(point.chunk_faces, point.chunk_seconds, level)
        self._encoder.period_ms = round(1000 * point.face_period_s)
        self._metrics.rung.set(self._control.rung)

    def _count(self, now_s: float, faces: int) -> None:
        passed_s = max(now_s - self._counted_s, 1e-6)
        self._counted_s = now_s
        share = math.exp(-passed_s / MEMORY_S)
        self._faces_per_s = share * self._faces_per_s + (1 - share) * faces / passed_s
        self._tracks = share * self._tracks + (1 - share) * faces


def level_bytes(bundle: Bundle, level: int | None) -> list[float]:
    """What a face costs by the bundle's own figures, at each quality level up to the usual one.

    level: the usual one; None for the bundle's own.
    """
    highest = bundle.manifest.latent.default_level if level is None else level
    figures = bundle.manifest.figures.get("levels", [])
    sizes = [float(of_level["payload_bytes_per_face"]) for of_level in figures]
    return (sizes or [USUAL_FACE_BYTES] * bundle.tables.levels)[: highest + 1]
