"""What the encoder counts, for Prometheus and for its own summary. Seconds and bytes.

No label holds a track or anything else of a person; their values are bounded: reasons are the
constants below, codes are those of `mien.errors`. One process has one camera; where several are
supervised, `fleet_metrics` adds the camera's name, which comes from the operator's file.
"""

import math
from collections import Counter as Tally
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)

from edge_encoder.capture.health import CameraHealth
from mien.errors import (
    SourceEndedError,
    SourceFrozenError,
    SourceOpenError,
    SourceStalledError,
    SourceTimeoutError,
    UnknownBundleError,
)
from mien.tracing import SPANS

# Why something was dropped. Frames:
CAMERA_NEWER: Final = "camera_newer_frame"  # nobody asked for it before the next one came
UNREADABLE: Final = "unreadable_image"
# Faces:
MAX_FACES: Final = "max_faces"  # the smallest of too many in a frame
RATE_CONTROL: Final = "rate_control"  # the link carries fewer faces of a track a second
UPLINK_FULL: Final = "uplink_full"  # the oldest unsent chunk, when a camera outruns the network
UNANSWERED: Final = "unanswered"  # recognised, but the connection broke before the result came
UNCONFIRMED: Final = "unconfirmed"  # sent, and left on a full disk before a server said it has it
SPOOL_FULL: Final = "spool_full"  # the oldest chunk on disk, when there are too many bytes
SPOOL_AGE: Final = "spool_age"  # it waited on disk for longer than allowed
SPOOL_DAMAGED: Final = "spool_damaged"  # it could not be read back
REASONS: Final = (
    CAMERA_NEWER,
    UNREADABLE,
    MAX_FACES,
    RATE_CONTROL,
    UPLINK_FULL,
    UNANSWERED,
    UNCONFIRMED,
    SPOOL_FULL,
    SPOOL_AGE,
    SPOOL_DAMAGED,
)

# Why a live source was lost: the codes of mien.errors.
LOSSES: Final = (
    *(SourceOpenError.code, SourceEndedError.code, SourceTimeoutError.code),
    *(SourceStalledError.code, SourceFrozenError.code),
)

# Why a stream to a server ended and another one is opened. In order: the server drained, it closed
# the stream, or fresh faces get an epoch of their own (on the same server).
DRAINED: Final = "drained"
CLOSED: Final = "closed"
BEHIND: Final = "behind"
# No Welcome came, or no answer for too long.
SILENT: Final = "silent"
# The device's certificate has changed: the same server, with the new one.
ROTATED: Final = "rotated"
# The server has none of the device's bundles; another one may.
UNKNOWN_BUNDLE: Final = UnknownBundleError.code
CANCELLED: Final = "cancelled"
RECONNECTS: Final = (
    *(DRAINED, CLOSED, BEHIND, SILENT, ROTATED, UNKNOWN_BUNDLE),
    # What a broken stream ended with: gRPC's statuses that mean "come again".
    *(CANCELLED, "unavailable", "internal", "deadline_exceeded", "resource_exhausted", "unknown"),
)

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)


class Metrics:
    """The device's metrics, in a registry of their own so that tests may have several.

    drops: reason → frames or faces. rejections: code → faces the server refused.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.drops: Tally[str] = Tally()
        self.rejections: Tally[str] = Tally()
        self.frames = self._counter("frames", "Frames looked at")
        self.faces = self._counter("faces", "Faces encoded")
        self._looked_twice = 0
        self._second_looks = self._counter(
            "second_looks", "Faces that were looked at twice, for a first look left them in doubt"
        )
        self.recognised = self._counter("recognised_faces", "Faces whose result came back")
        self.payload_bytes = self._counter("payload_bytes", "Bytes of coded chunks")
        self.layer_bytes = self._counter(
            "layer_bytes", "Bytes of enhancement layers, where the owner allows them"
        )
        self.layer_failures = self._counter(
            "layer_failures", "Chunks that went without the layers that were wanted", "code"
        )
        self.connected = self._gauge(
            "connected", "Whether a recognizer has welcomed the device, and the stream is open"
        )
        self.reconnects = self._counter(
            "reconnects", "Attempts to connect after the first, by why", "reason"
        )
        self.certificate_expiry = self._gauge(
            "certificate_expiry_timestamp_seconds",
            "Unix time at which the device's certificate expires; infinite over plaintext",
        )
        self.certificate_expiry.set(math.inf)
        self.certificate_refusals = self._counter(
            "certificate_refusals", "Changes of the certificate's files that cannot be used"
        )
        self.server_position = self._gauge(
            "server_position", "Which of --server is in use, counted from 1; 0 while none is"
        )
        self.bundle_changes = self._counter("bundle_changes", "Changes to another bundle")
        self.bundle_failures = self._counter(
            "bundle_failures", "Attempts to get and load another bundle that failed"
        )
        self.refused_bundles = self._counter(
            "refused_bundles", "Bundles that were not taken: damaged, or not signed", "code"
        )
        self.tracks = self._gauge("faces_in_view", "Faces in the latest frame")
        self.queue_chunks = self._gauge("queue_chunks", "Chunks that were never sent")
        self.in_flight_chunks = self._gauge("in_flight_chunks", "Chunks sent and not settled")
        self.late = self._counter("late_faces", "Faces of earlier runs whose result came back")
        self.spool_chunks = self._gauge("spool_chunks", "Chunks on disk")
        self.spool_faces = self._gauge("spool_faces", "Faces on disk")
        self.spool_bytes = self._gauge("spool_bytes", "Bytes that the chunks on disk count as")
        self.spool_limit_bytes = self._gauge(
            "spool_limit_bytes", "Bytes beyond which the oldest go; 0 without a spool"
        )
        self.spool_failing = self._gauge("spool_failing", "1 while the disk takes no chunks")
        self.spool_unstored = self._counter(
            "spool_unstored_faces", "Faces that waited in memory alone, for the disk took none"
        )
        self.lag = self._gauge("lag_seconds", "How long the oldest unanswered chunk has waited")
        self.lag_limit = self._gauge(
            "lag_limit_seconds", "What a camera's lag should not exceed; infinite for a file"
        )
        self.lag_limit.set(math.inf)
        self.rung = self._gauge(
            "rate_rung", "Steps down from what is sent where the link allows it; 0 for none"
        )
        self.traced = self._counter("traced_chunks", "Chunks that a trace was begun of")
        self.spans = self._counter(
            "spans", "Spans ended; exported to the collector; failed to be", "outcome"
        )
        self.wire_bytes = self._gauge("wire_bytes", "TCP payload sent to the server")
        self._frame_seconds = Histogram(
            "mien_edge_frame_cpu_seconds",
            "Processor time of a frame: detection, tracking, alignment, analysis, coding",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._dropped = self._counter("dropped", "Frames or faces, by the rule's name", "reason")
        self._rejected = self._counter("rejected_faces", "Refused by the server, by code", "code")
        self._camera_losses = self._counter("camera_losses", "Losses of the camera", "code")
        for outcome in SPANS:
            self.spans.labels(outcome)
        for reason in REASONS:
            self._dropped.labels(reason)
        for reason in RECONNECTS:
            self.reconnects.labels(reason)
        for code in LOSSES:
            self._camera_losses.labels(code)

    def drop(self, reason: str, count: int) -> None:
        """Count frames or faces that a rule has dropped."""
        self.drops[reason] += count
        self._dropped.labels(reason).inc(count)

    def drop_until(self, reason: str, total: int) -> None:
        """The same for a cause that keeps its own total."""
        self.drop(reason, total - self.drops[reason])

    def look_twice_until(self, total: int) -> None:
        """Count second looks, by their total."""
        self._second_looks.inc(total - self._looked_twice)
        self._looked_twice = total

    def reject(self, code: str, faces: int) -> None:
        """Count the faces of a chunk that the server refused."""
        self.rejections[code] += faces
        self._rejected.labels(code).inc(faces)

    def lose_camera(self, code: str) -> None:
        """Count a failure of a live source, which is opened again."""
        self._camera_losses.labels(code).inc()

    def show_health(self, health: CameraHealth) -> None:
        """Have a live source's health among the metrics."""
        self._gauge("camera_health", "0..1 over five minutes, see CameraHealth").set_function(
            lambda: health.report().health
        )
        self._gauge("camera_delivering", "Whether the camera delivers now").set_function(
            lambda: float(health.report().delivering)
        )
        self._gauge("camera_fps", "Frames a second while it delivered").set_function(
            lambda: health.report().fps
        )

    def observe_frame(self, cpu_s: float) -> None:
        """Note the processor time of one frame."""
        self._frame_seconds.observe(cpu_s)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"mien_edge_{name}", text, registry=self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"mien_edge_{name}", text, labels, registry=self.registry)
