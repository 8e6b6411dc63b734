"""The recognizer's settings: flags, then environment (MIEN_CLOUD_*), then YAML, then defaults."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from cloud_recognizer.accuracy.device_groups import DeviceGroups
from cloud_recognizer.audit_files import MOST_FILES
from cloud_recognizer.hub.nats_access import NatsAccess
from cloud_recognizer.live_page.address import PageAddress
from mien.bitstream import Limits
from mien.errors import ConfigError
from mien.settings import check_within, logging_level, parse_settings
from mien.tls import TlsFiles, check_plaintext
from mien.tracing import check_endpoint
from mien.urls import without_credentials

# What once-only needs of NATS: a device that resumes elsewhere does so within this time.
NATS_HELD_S = 60.0

Provider = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class CloudConfig:
    """Settings of the recognizer."""

    bundles: Path
    """Folder that holds the bundles to serve, or that is one."""
    bundle_keys: Path | None = None
    """Folder of public keys (*.pub), one of which must have signed a bundle; null takes any."""
    bundles_poll_s: float = 2.0
    """Seconds from one look at that folder, for new bundles and for rollout.json, to the next."""
    max_bundles: int = 16
    """Bundles that may be in memory, those that wait for their last stream to end included."""
    probe_interval_s: float = 60.0
    """Seconds from one golden probe of each bundle through the serving path to the next."""
    host: str = "127.0.0.1"
    """Address to listen on; without TLS it must be this machine's loopback."""
    port: int = 50051
    """TCP port of the services; 0 lets the system choose."""
    insecure: bool = False
    """Whether to listen without TLS beyond loopback: anyone may then read, and be any device."""
    tls_ca: Path | None = None
    """PEM file of the authorities whose clients are let in; with tls_certificate and tls_key."""
    tls_certificate: Path | None = None
    """PEM file of the recognizer's certificate chain, read anew when it changes."""
    tls_key: Path | None = None
    """PEM file of its private key."""
    token_port: int | None = None
    """TCP port for consumers and operators with a token (JWT) in place of a certificate."""
    token_keys: Path | None = None
    """File of the public keys that tokens are checked with: PEM, or a JWKS."""
    token_audience: str = "mien"  # noqa: S105  # no secret, a name
    """What a token's aud must hold."""
    token_issuer: str | None = None
    """What a token's iss must be; null asks for none."""
    device_chunks_per_s: float = 0.0
    """Chunks a second that one device may send over time; 0: no bound."""
    device_faces_per_s: float = 0.0
    """Faces a second that one device may send over time; 0: no bound."""
    device_burst_s: float = 5.0
    """Seconds of these rates that a device may send at once after it was silent."""
    metrics_host: str = "127.0.0.1"
    """Address that /metrics listens on: plain HTTP without a login, wherever host is."""
    metrics_port: int | None = 9464
    """TCP port of /metrics; 0 lets the system choose, null turns it off."""
    live_page: str | None = None
    """HOST:PORT of a page that shows in a browser what is recognised; null: there is none."""
    live_page_insecure: bool = False
    """Whether the page, which is plain HTTP without a login, may be served beyond loopback."""
    live_page_names: list[str] = field(default_factory=list)
    """Host names that browsers may ask for it by, beside addresses and localhost."""
    allow_reconstruction: bool = False
    """Whether Reconstruct may make viewable faces from chunks."""
    provider: Provider = "auto"
    """Where models run: cuda refuses to start without a usable GPU, auto falls back to cpu."""
    threads: int = 1
    """Threads that ONNX Runtime uses for one batch."""
    workers: int = 2
    """Batches that are decoded and classified at the same time."""
    max_batch_faces: int = 256
    """Faces that are taken into one batch; a chunk with more is a batch of its own."""
    max_batch_wait_s: float = 0.004
    """Seconds the first chunk of a batch waits for others."""
    max_age_s: float = 5.0
    """Seconds from receipt after which a chunk that still waits is not recognised any more."""
    max_streams: int = 512
    """Device streams that may be open."""
    max_device_streams: int = 4
    """Of these, streams of one device: live, catching up, and two that died without a word."""
    credits: int = 8
    """Chunks of one stream that may be unsettled; fewer when there is much to do."""
    queue_chunks: int = 8192
    """Chunks of all streams and calls that may be promised or unsettled."""
    queue_bytes: int = 128 << 20
    """Bytes that these chunks may have, each counted as the longest that is allowed."""
    max_recognize_chunks: int = 4096
    """Chunks of all Recognize calls together that may be unsettled, of those of queue_chunks."""
    max_sessions: int = 65536
    """Devices whose last acknowledged chunk is remembered."""
    max_watchers: int = 64
    """WatchRecognitions calls that may be open."""
    watcher_queue: int = 1024
    """Recognitions that wait for one watcher, beyond which the oldest chunks are dropped."""
    retention_s: float | None = None
    """Seconds that results are held for watchers that resume; by default 0, and 60 with nats."""
    retention_chunks: int = 65536
    """Results that are held at most, of one chunk each; the oldest go."""
    retention_bytes: int = 64 << 20
    """Bytes of results that are held at most; the oldest go."""
    nats: str | None = field(default=None, repr=False)
    """Where several recognizers run: NATS with JetStream, tls://host:4222, commas between."""
    nats_ca: Path | None = None
    """PEM file of the authorities of NATS's certificates; tls:// needs it."""
    nats_certificate: Path | None = None
    """PEM file of the recognizer's certificate chain for NATS, where that asks for one."""
    nats_key: Path | None = None
    """PEM file of its private key."""
    nats_login: Path | None = None
    """File with USER:PASSWORD, or a token, for NATS; read anew at each connection."""
    nats_insecure: bool = False
    """Whether nats:// may lead beyond loopback: results of all devices then travel in plaintext."""
    nats_storage: Literal["memory", "file"] = "memory"
    """Where JetStream holds results: file survives a crash of NATS."""
    nats_replicas: int = 1
    """Servers of a NATS cluster that hold each result."""
    publish_window: int = 256
    """Publishes that may wait for NATS at a time."""
    target_face_bytes: int = 0
    """Payload bytes a face that devices are asked to aim at; 0 leaves it to them."""
    hello_timeout_s: float = 10.0
    """Seconds a new stream has to say Hello."""
    write_timeout_s: float = 30.0
    """Seconds a message waits for its client to read, beyond which the call is ended."""
    drain_grace_s: float = 10.0
    """Seconds that devices get to flush and leave when the service stops."""
    device_groups: dict[str, str] = field(default_factory=dict)
    """Shell patterns of device ids, each with the group that metrics count it in; first match."""
    accuracy_window_s: float = 3600.0
    """Seconds over which accuracy is estimated and drift is looked for."""
    drift_min_faces: int = 500
    """Faces below which a window or its reference says nothing of drift."""
    label_window_s: float = 0.0
    """Seconds that answers wait in memory for people's labels; 0: none, and no ReportLabels."""
    label_faces: int = 65536
    """Faces whose answers may wait so, beyond which the oldest are forgotten."""
    policy: Path | None = None
    """YAML file of the uses that are allowed; without it all that the AI Act does not forbid."""
    audit_log: Path | None = None
    """File that says who has watched and what was made viewable; null keeps none."""
    audit_required: bool = False
    """Whether nothing is shown while the audit log cannot be written."""
    audit_mb: float = 10.0
    """Megabytes of one file of the audit log."""
    audit_files: int = 10
    """Files of the audit log that are kept; the oldest goes."""
    audit_days: float = 365.0
    """Days that an entry of the audit log is kept, and one more at most."""
    archive: Path | None = None
    """Folder where payloads are kept for mien rescore; personal data on disk, so off by default."""
    archive_days: float | None = None
    """Days after which they are deleted; archive must have it."""
    archive_mb: float = 1000.0
    """Megabytes of the archive; beyond, the oldest go."""
    tracing_endpoint: str | None = None
    """OTLP collector (gRPC) for traces that devices begin, http://host:4317; null traces none."""
    tracing_sample: float = 0.1
    """Largest share of a stream's chunks that are traced, however many its device asks for."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least serious messages to log."""

    def __post_init__(self) -> None:
        check_within("port", self.port, 0, 65535)
        if self.metrics_port is not None:
            check_within("metrics_port", self.metrics_port, 0, 65535)
        self._check_transport()
        check_within("device_chunks_per_s", self.device_chunks_per_s, 0, 1e6)
        check_within("device_faces_per_s", self.device_faces_per_s, 0, 1e6)
        check_within("device_burst_s", self.device_burst_s, 0.01, 3600)
        if self.live_page is not None:
            PageAddress.parse(self.live_page).check(insecure=self.live_page_insecure)
        check_within("bundles_poll_s", self.bundles_poll_s, 0.01, 3600)
        check_within("max_bundles", self.max_bundles, 1, 1024)
        check_within("probe_interval_s", self.probe_interval_s, 0.01, 86_400)
        check_within("threads", self.threads, 1, 256)
        check_within("workers", self.workers, 1, 64)
        check_within("max_batch_faces", self.max_batch_faces, 1, 65536)
        check_within("max_batch_wait_s", self.max_batch_wait_s, 0, 1)
        check_within("max_age_s", self.max_age_s, 0.01, 3600)
        check_within("max_streams", self.max_streams, 1, 100_000)
        check_within("max_device_streams", self.max_device_streams, 1, 1024)
        check_within("credits", self.credits, 1, 1024)
        # One call may be as long as a message may be.
        check_within("max_recognize_chunks", self.max_recognize_chunks, 512, 1 << 20)
        # Every stream has a place of its own.
        fewest = self.max_streams + self.max_recognize_chunks
        check_within("queue_chunks", self.queue_chunks, fewest, 1 << 24)
        longest = Limits().max_chunk_bytes
        check_within("queue_bytes", self.queue_bytes, fewest * longest, 1 << 40)
        check_within("max_sessions", self.max_sessions, self.max_streams, 1 << 24)
        check_within("max_watchers", self.max_watchers, 0, 10_000)
        check_within("watcher_queue", self.watcher_queue, Limits().max_faces, 1 << 20)
        check_within("retention_s", self.held_s, 10 if self.nats else 0, 7 * 86400)
        check_within("retention_chunks", self.retention_chunks, 1, 1 << 24)
        check_within("retention_bytes", self.retention_bytes, 1 << 20, 1 << 36)
        self.nats_access  # noqa: B018  # refuses what it cannot be
        check_within("nats_replicas", self.nats_replicas, 1, 5)
        check_within("publish_window", self.publish_window, 1, 4096)
        check_within("target_face_bytes", self.target_face_bytes, 0, 1 << 16)
        check_within("hello_timeout_s", self.hello_timeout_s, 0.001, 3600)
        check_within("write_timeout_s", self.write_timeout_s, 0.001, 3600)
        check_within("drain_grace_s", self.drain_grace_s, 0, 3600)
        DeviceGroups(self.device_groups)
        check_within("accuracy_window_s", self.accuracy_window_s, 1, 30 * 86_400)
        check_within("drift_min_faces", self.drift_min_faces, 1, 1 << 24)
        check_within("label_window_s", self.label_window_s, 0, 7 * 86_400)
        check_within("label_faces", self.label_faces, Limits().max_faces, 1 << 22)
        if self.audit_required and self.audit_log is None:
            raise ConfigError("audit_required needs a file: give audit_log, too")
        check_within("audit_mb", self.audit_mb, 0.001, 1e5)
        check_within("audit_files", self.audit_files, 2, MOST_FILES)
        check_within("audit_days", self.audit_days, 1, 36_500)
        if (self.archive is None) != (self.archive_days is None):
            raise ConfigError("archive and archive_days go together: say where, and for how long")
        if self.archive_days is not None:
            check_within("archive_days", self.archive_days, 0.001, 3650)
        check_within("archive_mb", self.archive_mb, 0.001, 1e7)
        check_endpoint(self.tracing_endpoint)
        check_within("tracing_sample", self.tracing_sample, 0, 1)

    def _check_transport(self) -> None:
        files = self.tls
        if files is None:
            check_plaintext(
                self.host, insecure=self.insecure, remedy="give tls_ca, tls_certificate, tls_key"
            )
        elif files.certificate is None:
            raise ConfigError("tls_certificate and tls_key must be given beside tls_ca")
        elif self.insecure:
            raise ConfigError("insecure and tls_certificate exclude each other: leave one away")
        if (self.token_port is None) != (self.token_keys is None):
            raise ConfigError("token_port and token_keys belong together: give both")
        if self.token_port is not None:
            check_within("token_port", self.token_port, 0, 65535)
            if files is None:
                raise ConfigError("token_port needs TLS: give tls_ca, tls_certificate and tls_key")

    @property
    def tls(self) -> TlsFiles | None:
        """The files of TLS; None where it is plaintext."""
        return TlsFiles.of(self.tls_ca, self.tls_certificate, self.tls_key)

    @property
    def nats_access(self) -> NatsAccess | None:
        """How NATS is reached; None without it. Raises ConfigError."""
        tls = TlsFiles.of(self.nats_ca, self.nats_certificate, self.nats_key, "nats")
        if self.nats:
            return NatsAccess.of(self.nats, tls, self.nats_login, insecure=self.nats_insecure)
        if tls is not None or self.nats_login is not None or self.nats_insecure:
            raise ConfigError(
                "nats_ca, nats_login and nats_insecure say how NATS is reached: give nats"
            )
        return None

    @property
    def stream_chunks(self) -> int:
        """Chunks of all streams together, of the longest length, that there is room for."""
        by_bytes = self.queue_bytes // Limits().max_chunk_bytes
        return min(self.queue_chunks, by_bytes) - self.max_recognize_chunks

    @property
    def held_s(self) -> float:
        """`retention_s`, or its default."""
        if self.retention_s is None:
            return NATS_HELD_S if self.nats else 0.0
        return self.retention_s

    def loggable(self) -> dict[str, object]:
        """The settings, without the secrets that addresses may hold."""
        shown = without_credentials(self.nats) if self.nats else None
        return asdict(self) | {"nats": shown}

    @property
    def logging_level(self) -> int:
        """`log_level` as the logging module counts it."""
        return logging_level(self.log_level)


def parse_config(arguments: Sequence[str]) -> CloudConfig:
    """Parse the arguments of `mien-cloud serve`.

    Raises ConfigError, or SystemExit with status 2 after jsonargparse has said what is wrong.
    """
    description = "Recognise the expressions of faces that devices stream."
    return CloudConfig(**parse_settings(CloudConfig, "mien-cloud serve", description, arguments))
