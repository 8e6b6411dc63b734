"""Traces of sampled chunks, from capture to result, in OpenTelemetry.

    device   chunk ─┬ capture, detect, analyse (of each frame), encode, spool
                    └ uplink ─┐ 24 bytes in the chunk's message, of sampled chunks only
    server                    └ recognise ─┬ intake, queue, batch, decode, classify
                                           └ publish

A stream lasts for days, so a trace is of a chunk. Who traces nothing has no `Tracing`, and calls
nothing here. Spans say how long, how many and how it ended: `Attributes` has no field for a device,
a track, a box or an expression. OpenTelemetry is an extra (`mien[tracing]`), which `spans` alone
imports, and `open_tracing` imports that when it is asked for.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple, TypedDict

from mien.errors import ConfigError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

    from mien.spans import Tracing

# What became of a chunk that asked to be traced.
BEGUN: Final = "begun"  # here: a device
JOINED: Final = "joined"
LIMITED: Final = "limited"  # more than the server's share of the stream's chunks
MALFORMED: Final = "malformed"
TRACED: Final = (BEGUN, JOINED, LIMITED, MALFORMED)

# What became of spans. What is neither exported nor failed waits, or was too much for the queue.
ENDED: Final = "ended"
EXPORTED: Final = "exported"
FAILED: Final = "failed"
SPANS: Final = (ENDED, EXPORTED, FAILED)

EXPORT_TIMEOUT_S: Final = 2.0
# Traces that a stream may have saved up.
MAX_SAVED: Final = 2.0

_ENDPOINT: Final = re.compile(r"https?://[^\s/@:]+(:[0-9]{1,5})?/?")

Count = Callable[[str, int], None]


class Attributes(TypedDict, total=False):
    """Everything that a span may say."""

    faces: int
    chunks: int
    payload_bytes: int
    outcome: str


class Stage(NamedTuple):
    """Something that took from one time to another, both of time.monotonic()."""

    name: str
    start_s: float
    end_s: float


class Laps:
    """Stages that follow one another, for who learns only afterwards whether they are of use."""

    def __init__(self) -> None:
        self._mark_s = time.monotonic()
        self._stages: list[Stage] = []

    def lap(self, name: str) -> None:
        """A stage has ended: it began when the one before did end."""
        now_s = time.monotonic()
        self._stages.append(Stage(name, self._mark_s, now_s))
        self._mark_s = now_s

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Those that have ended."""
        return tuple(self._stages)


class Allowance:
    """The share of chunks that may be traced: earned by each chunk, saved up, never borrowed."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._saved = 0.0

    def earn(self) -> None:
        """A chunk has come."""
        self._saved = min(self._saved + self._share, MAX_SAVED)

    def take(self) -> bool:
        """Whether one may be traced; if so, that is spent."""
        if self._saved < 1 - 1e-9:  # ten tenths are one
            return False
        self._saved -= 1
        return True


def check_endpoint(endpoint: str | None) -> None:
    """Raise ConfigError for what is no address of an OTLP collector."""
    if endpoint is not None and not _ENDPOINT.fullmatch(endpoint):
        raise ConfigError(
            "tracing_endpoint must be the address of an OTLP collector (gRPC), such as "
            "http://collector:4317"
        )


@contextlib.contextmanager
def open_tracing(
    endpoint: str | None,
    share: float,
    service: str,
    *,
    chunks: Count,
    spans: Count,
    exporter: SpanExporter | None = None,
) -> Iterator[Tracing | None]:
    """Trace to an OTLP collector while the context lasts; without an endpoint, yields None.

    share: see Tracing. service: the name that spans are filed under. chunks, spans: called, from
    any thread, with one of TRACED and of SPANS and how many. exporter: where spans go instead, each
    at once. At the end what waits is given twice EXPORT_TIMEOUT_S at most. Raises ConfigError where
    the extra is not installed.
    """
    if endpoint is None and exporter is None:
        yield None
        return
    try:
        from mien import spans as opened
    except ImportError as error:
        raise ConfigError(
            f"tracing_endpoint needs the package {error.name}: pip install 'mien[tracing]'"
        ) from error
    provider = opened.provider(endpoint, service, spans, exporter)
    try:
        yield opened.Tracing(provider.get_tracer("mien"), share, chunks)
    finally:
        provider.shutdown()
