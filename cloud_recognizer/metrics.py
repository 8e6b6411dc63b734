"""What the recognizer counts, for Prometheus. Seconds and bytes; no device or person in a label.

The labels' values are bounded: expressions and bundles are those served, codes are those of
`mien.errors`, reasons are the constants below. Those that are made at a scrape stand in
`accuracy_metrics`.
"""

import math
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)

from mien.declaration import ContextOfUse
from mien.messages.labels import LabelStatus
from mien.messages.results import ItemStatus
from mien.tracing import JOINED, LIMITED, MALFORMED, SPANS

# Why something was dropped: one for each rule of a queue.
QUEUE_FULL: Final = "queue_full"  # batcher: a call's chunks are refused, there is no room
TOO_LATE: Final = "too_late"  # batcher: not worth recognising any more when its turn came
NO_CREDIT: Final = "no_credit"  # stream: more than was granted, which ends the stream
STREAM_GONE: Final = "stream_gone"  # batcher: withdrawn with its stream; the device sends it again
DUPLICATE: Final = "duplicate"  # stream: received before, acknowledged again
WATCHER_SLOW: Final = "watcher_slow"  # subscriber: the oldest recognitions go, by chunk
SESSION_FORGOTTEN: Final = "session_forgotten"  # the device longest silent starts from seq 0
SHADOW_FULL: Final = "shadow_full"  # shadow: the newest faces are not compared
HUB_MALFORMED: Final = "hub_malformed"  # hub: a message in NATS that no recognizer wrote
ANSWERS_FULL: Final = "answers_full"  # recent answers: the oldest faces can be labelled no more
ARCHIVE_FULL: Final = "archive_full"  # archive: chunks come faster than the disk takes them
ARCHIVE_FAILED: Final = "archive_failed"  # archive: chunks of a part that could not be written
REASONS: Final = (
    QUEUE_FULL,
    TOO_LATE,
    NO_CREDIT,
    STREAM_GONE,
    DUPLICATE,
    WATCHER_SLOW,
    SESSION_FORGOTTEN,
    SHADOW_FULL,
    HUB_MALFORMED,
    ANSWERS_FULL,
    ARCHIVE_FULL,
    ARCHIVE_FAILED,
)
# Why a bundle of the repository was refused that has no error of its own: max_bundles.
TOO_MANY: Final = "too_many"

# Why a part of the archive was deleted.
ARCHIVE_AGE: Final = "age"
ARCHIVE_SIZE: Final = "size"
ARCHIVE_RULES: Final = (ARCHIVE_AGE, ARCHIVE_SIZE)
# What met a device that sends more than it may.
CREDITS_WITHHELD: Final = "credits_withheld"
STREAM_REFUSED: Final = "stream_refused"
RATE_LIMITS: Final = (CREDITS_WITHHELD, STREAM_REFUSED)

# What became of an entry of the audit log.
AUDIT_WRITTEN: Final = "written"
AUDIT_LOST: Final = "lost"
AUDIT_OUTCOMES: Final = (AUDIT_WRITTEN, AUDIT_LOST)

# Why a browser's request is refused that has no error of its own.
FOREIGN: Final = "foreign_page"  # another site asks, or a name that is not ours
CONNECTIONS: Final = "connections"  # there are too many
SLOW: Final = "slow_browser"  # nothing was read for write_timeout_s
PAGE_REFUSALS: Final = (FOREIGN, CONNECTIONS, SLOW)

# Which bound a stream or call has met that was turned away.
STREAMS: Final = "streams"  # max_streams, and no late stream that could give way
DEVICE_STREAMS: Final = "device_streams"  # one device's part of it
GAVE_WAY: Final = "gave_way"  # a late stream was ended, for a live one had no place
CALLS: Final = "calls"  # StreamFaces calls, those without a Hello included
UNREAD_CALLS: Final = "unread_calls"  # unary calls whose request is not there
SLOW_REQUESTS: Final = "slow_requests"  # of these, those that take long
REFLECTIONS: Final = "reflections"
DOWNLOADS: Final = "downloads"  # of bundles: those that run, and wait
WATCHERS: Final = "watchers"
HEALTH_WATCHES: Final = "health_watches"
METRICS_CONNECTIONS: Final = "metrics_connections"  # to the port of metrics and health
SHARE: Final = "share"  # one caller's part of any of the bounds on calls
BOUNDS: Final = (
    *(STREAMS, DEVICE_STREAMS, GAVE_WAY),
    *(CALLS, UNREAD_CALLS, SLOW_REQUESTS, REFLECTIONS, HEALTH_WATCHES),
    *(DOWNLOADS, WATCHERS, METRICS_CONNECTIONS, SHARE),
)

# How faces come in.
STREAM_FACES: Final = "StreamFaces"
RECOGNIZE: Final = "Recognize"
RPCS: Final = (STREAM_FACES, RECOGNIZE)

# What came of a probe; a skipped one found the queue full or no answer in time.
HELD: Final = "held"
FAILED: Final = "failed"
SKIPPED: Final = "skipped"
PROBE_OUTCOMES: Final = (HELD, FAILED, SKIPPED)

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
# Where its 99th percentile is promised to be: 50 ms.
_SOON = (0.015, 0.02, 0.03, 0.035, 0.04, 0.045, 0.06, 0.075)
_FACES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_BITS = (16, 32, 64, 96, 128, 192, 256, 320, 512, 1024, 2048, 4096)


class Metrics:
    """The service's metrics, in a registry of their own so that tests may have several."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.streams = self._gauge("streams", "Device streams that are open")
        self.watchers = self._gauge("watchers", "Subscribers to recognitions")
        self.queue_chunks = self._gauge("queue_chunks", "Chunks that wait for a batch")
        self.queue_faces = self._gauge("queue_faces", "Faces that these chunks declare")
        self.queue_bytes = self._gauge("queue_bytes", "Bytes of these chunks")
        self.credits = self._gauge("credits", "Credits that devices hold, all together")
        self.credit_window = self._gauge(
            "credit_window", "Credits that a stream may have at most by the time chunks take"
        )
        self.payload_bytes = self._counter("payload_bytes", "Bytes of coded chunks received")
        self.layer_bytes = self._counter("layer_bytes", "Bytes of enhancement layers received")
        self.chunks = self._counter("chunks", "Chunks settled, by what became of them", "status")
        self.faces = self._counter("faces", "Faces recognised, by the RPC they came in", "rpc")
        # Shown at zero: a rate cannot see the step from no series to its first value.
        for status in (ItemStatus.RESULT, ItemStatus.REJECTED):
            self.chunks.labels(status.name.lower())
        for rpc in RPCS:
            self.faces.labels(rpc)
        self.recognitions = self._counter(
            "recognitions", "Faces recognised, by expression", "expression"
        )
        self.rejected = self._counter(
            "rejected_chunks", "Chunks that will never be recognised, by code", "code"
        )
        self.dropped = self._counter("dropped", "What a queue's rule has dropped", "reason")
        self.rpc_errors = self._counter(
            "rpc_errors", "RPCs ended with an error, by its code", "code"
        )
        self.reconstructions = self._counter("reconstructions", "Faces made viewable")
        self.bundle_faces = self._counter(
            "bundle_faces", "Faces recognised, by the bundle that they were coded with", "bundle_id"
        )
        self.bundle_payload_bytes = self._counter(
            "bundle_payload_bytes", "Bytes of the chunks that these came in", "bundle_id"
        )
        self.face_bits = self._histogram("face_bits", "Payload bits a face, by chunk", _BITS)
        self.batch_faces = self._histogram("batch_faces", "Faces in a batch", _FACES)
        self.batch_chunks = self._histogram("batch_chunks", "Chunks in a batch", _FACES)
        self.late_seconds = self._histogram(
            "late_seconds", "From a chunk's deadline to its turn, of those too late", _SECONDS
        )
        self.queue_seconds = self._histogram(
            "queue_seconds", "From a chunk received to its batch taken", _SECONDS
        )
        self.decode_seconds = self._histogram(
            "decode_seconds", "Entropy decoding of a batch", _SECONDS
        )
        self.classify_seconds = self._histogram(
            "classify_seconds", "Classification of a batch", _SECONDS
        )
        self.chunk_seconds = self._histogram(
            *("chunk_seconds", "From a chunk received to its result ready to send"),
            tuple(sorted({*_SECONDS, *_SOON})),
        )
        self.model_info = self._gauge(
            "model_info", "1 for each bundle served, with where it runs", "bundle_id", "provider"
        )
        self.probe_difference = self._gauge(
            "probe_difference",
            "Largest difference of a probability from the golden probe's",
            "bundle_id",
        )
        self.bundle_role = self._gauge(
            "bundle_role", "1 for the bundle that is promoted, canary, shadow", "bundle_id", "role"
        )
        self.canary_share = self._gauge("canary_share", "Share of the devices that get the canary")
        self.looks = self._counter("repository_looks", "Looks at the repository, failed or not")
        self.incomplete_bundles = self._gauge(
            "incomplete_bundles", "Folders of the repository that are still being copied"
        )
        self.refused_bundles = self._counter(
            "refused_bundles", "Folders of the repository that cannot be served, by code", "code"
        )
        self.probes = self._counter(
            "probes", "Golden probes through the serving path, by outcome", "outcome"
        )
        self.rollbacks = self._counter("rollbacks", "Bundles withdrawn because a probe failed")
        self.rollout_errors = self._counter(
            "rollout_errors", "Times that rollout.json could not be read or written"
        )
        self.shadow_faces = self._counter("shadow_faces", "Faces that the shadow answered too")
        self.shadow_disagreements = self._counter(
            "shadow_disagreements", "Faces that the shadow gave another expression"
        )
        self.shadow_share = self._gauge(
            "shadow_disagreement_share", "Disagreements over faces, since it became the shadow"
        )
        self.shadow_failures = self._counter(
            "shadow_failures", "Batches at which the shadow failed"
        )
        self.turned_away = self._counter(
            "turned_away",
            "Streams, calls, connections that found no place, by the bound they met",
            "bound",
        )
        for bound in BOUNDS:
            self.turned_away.labels(bound)
        self.rate_limited = self._counter(
            "rate_limited", "Times that a device had sent more than one may, by what met it", "how"
        )
        for how in RATE_LIMITS:
            self.rate_limited.labels(how)
        self.certificate_expiry = self._gauge(
            "certificate_expiry_timestamp_seconds",
            "Unix time at which our certificate expires; infinite over plaintext",
        )
        self.certificate_expiry.set(math.inf)
        self.certificate_refusals = self._counter(
            "certificate_refusals", "Changes of the certificate's files that cannot be used"
        )
        self.labels = self._counter(
            "labels", "Labels that people have reported, by what became of them", "outcome"
        )
        for labelled in LabelStatus:
            self.labels.labels(labelled.name.lower())
        for outcome in PROBE_OUTCOMES:
            self.probes.labels(outcome)
        self.hub_connected = self._gauge(
            "hub_connected", "Whether results can be published now: 1, or 0 while NATS is away"
        )
        self.hub_unpublished = self._gauge(
            "hub_unpublished", "Results that NATS has not acknowledged, nor we their chunks"
        )
        self.hub_retries = self._counter("hub_retries", "Publishes to NATS that were tried again")
        self.hub_publish_seconds = self._histogram(
            "hub_publish_seconds", "From a result's turn to its acknowledgement by NATS", _SECONDS
        )
        self.page_browsers = self._gauge("page_browsers", "Browsers that have the live page open")
        self.page_refused = self._counter(
            "page_refusals", "Requests of browsers that were refused or cut short, by code", "code"
        )
        self.admitted = self._counter(
            "admitted_streams", "Device streams let in, by the declared context of use", "context"
        )
        for context in ContextOfUse:
            self.admitted.labels(context.word)
        self.refused = self._counter(
            "policy_refusals",
            "Streams and calls that the policy has refused, by its rule and the declared context",
            *("rule", "context"),
        )
        self.audit_entries = self._counter(
            "audit_entries", "Entries of the audit log, by what became of them", "outcome"
        )
        for outcome in AUDIT_OUTCOMES:
            self.audit_entries.labels(outcome)
        self.traced = self._counter(
            "traced_chunks",
            "Chunks whose device asked for a trace, by the answer",
            "outcome",
        )
        self.archived = self._counter("archived_chunks", "Chunks written to the archive")
        self.archive_bytes = self._gauge("archive_bytes", "Bytes of the archive's parts")
        self.archive_deleted = self._counter(
            "archive_deleted_parts", "Parts of the archive that were deleted, by the rule", "rule"
        )
        for rule in ARCHIVE_RULES:
            self.archive_deleted.labels(rule)
        for outcome in (JOINED, LIMITED, MALFORMED):
            self.traced.labels(outcome)
        self.spans = self._counter(
            "spans", "Spans ended; exported to the collector; failed to be", "outcome"
        )
        for outcome in SPANS:
            self.spans.labels(outcome)
        for reason in REASONS:
            self.dropped.labels(reason)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"mien_cloud_{name}", text, labels, registry=self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"mien_cloud_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"mien_cloud_{name}", text, buckets=buckets, registry=self.registry)
