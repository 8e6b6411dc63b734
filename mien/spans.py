"""What `tracing` opens: the spans of a chunk, and their way to a collector. Needs `mien[tracing]`.

Nothing is taken from the environment: neither a sampler nor what OpenTelemetry would tell of the
host and the process.
"""

import time
from collections.abc import Sequence
from typing import Final, Unpack

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    TraceFlags,
    Tracer,
    set_span_in_context,
)

from mien.tracing import (
    BEGUN,
    ENDED,
    EXPORT_TIMEOUT_S,
    EXPORTED,
    FAILED,
    JOINED,
    LIMITED,
    MALFORMED,
    Allowance,
    Attributes,
    Count,
    Stage,
)

# A trace id and a span id of W3C Trace Context; its version is 00, its one flag "sampled".
CONTEXT_BYTES: Final = 24
_TRACE_ID_BYTES: Final = 16
_INTERNAL: Final = SpanKind.INTERNAL

# The outcome of an uplink span whose stream broke.
SENT_AGAIN: Final = "sent_again"

# Spans that wait for the collector; beyond, the oldest go.
MAX_QUEUE: Final = 2048
BATCH: Final = 512
EVERY_S: Final = 2.0


class Trace:
    """The spans of one chunk at one end, under a root that `end` closes.

    Times are those of time.monotonic(), so that a clock that is set stretches no span. Whoever has
    the chunk may call this, one thread at a time.
    """

    def __init__(self, tracer: Tracer, root: str, start_s: float, parent: Context) -> None:
        self._tracer = tracer
        self._offset_ns = time.time_ns() - time.monotonic_ns()
        self._root = self._start(root, start_s, parent, SpanKind.SERVER if parent else _INTERNAL)
        self._children = set_span_in_context(self._root)
        self._mark_s = start_s
        self._uplink: Span | None = None
        self._ended = False

    def _start(self, name: str, at_s: float, parent: Context, kind: SpanKind) -> Span:
        return self._tracer.start_span(name, parent, kind, start_time=self._ns(at_s))

    def _ns(self, at_s: float) -> int:
        return round(at_s * 1e9) + self._offset_ns

    def add(self, stage: Stage, **what: Unpack[Attributes]) -> None:
        """Something is over."""
        span = self._start(stage.name, stage.start_s, self._children, _INTERNAL)
        span.set_attributes(dict(what))  # type: ignore[arg-type]  # its values are int and str
        span.end(self._ns(stage.end_s))

    def mark(self) -> None:
        """The next lap begins now."""
        self._mark_s = time.monotonic()

    def lap(self, name: str, **what: Unpack[Attributes]) -> None:
        """Something is over that began where the lap before ended."""
        start_s, self._mark_s = self._mark_s, time.monotonic()
        self.add(Stage(name, start_s, self._mark_s), **what)

    def sent(self, payload_bytes: int) -> bytes:
        """The chunk is about to be sent, perhaps again: what its message must carry."""
        if self._ended:
            return b""
        self._end_uplink(SENT_AGAIN)
        self._uplink = self._start("uplink", time.monotonic(), self._children, SpanKind.CLIENT)
        self._uplink.set_attribute("payload_bytes", payload_bytes)
        context = self._uplink.get_span_context()
        return context.trace_id.to_bytes(_TRACE_ID_BYTES) + context.span_id.to_bytes(
            CONTEXT_BYTES - _TRACE_ID_BYTES
        )

    def _end_uplink(self, outcome: str) -> None:
        if self._uplink is not None:
            self._uplink.set_attribute("outcome", outcome)
            self._uplink.end(self._ns(time.monotonic()))
            self._uplink = None

    def end(self, outcome: str, faces: int = 0) -> None:
        """What became of the chunk, as a code; the first one counts."""
        if self._ended:
            return
        self._ended = True
        self._end_uplink(outcome)
        self._root.set_attributes({"outcome": outcome, "faces": faces})
        self._root.end(self._ns(time.monotonic()))


class Tracing:
    """Where spans go, and which share of chunks has any; `open_tracing` makes one.

    share: of the chunks of a device, or at most of a stream. count: told what became of chunks
    that asked to be traced (TRACED).
    """

    def __init__(self, tracer: Tracer, share: float, count: Count) -> None:
        self._tracer = tracer
        self._share = share
        self._count = count
        self._own = Allowance(share)

    def begin(self, stages: Sequence[Stage]) -> Trace | None:
        """A chunk was made, in these stages: its trace, if it is one that is sampled."""
        self._own.earn()
        if not self._own.take():
            return None
        self._count(BEGUN, 1)
        trace = Trace(self._tracer, "chunk", min(stage.start_s for stage in stages), Context())
        for stage in stages:
            trace.add(stage)
        return trace

    def of_stream(self) -> "Joining":
        """What decides on the chunks of one stream that its device asks to be traced."""
        return Joining(self._tracer, Allowance(self._share), self._count)


class Joining:
    """Takes up the traces of a stream, a share of its chunks at most, whatever its device asks.

    A stream begins with nothing saved, so that opening many gains nothing.
    """

    def __init__(self, tracer: Tracer, allowance: Allowance, count: Count) -> None:
        self._tracer = tracer
        self._allowance = allowance
        self._count = count

    def join(self, context: bytes) -> Trace | None:
        """A chunk has come with this context, b"" for none. No bytes make this raise."""
        self._allowance.earn()
        if not context:
            return None
        parent = parse_context(context)
        if parent is None:
            self._count(MALFORMED, 1)
            return None
        if not self._allowance.take():
            self._count(LIMITED, 1)
            return None
        self._count(JOINED, 1)
        return Trace(self._tracer, "recognise", time.monotonic(), _remote(parent))


def parse_context(context: bytes) -> SpanContext | None:
    """What a chunk's message carries; None for what W3C Trace Context calls invalid."""
    if len(context) != CONTEXT_BYTES:
        return None
    trace_id, span_id = context[:_TRACE_ID_BYTES], context[_TRACE_ID_BYTES:]
    parsed = SpanContext(
        int.from_bytes(trace_id),
        int.from_bytes(span_id),
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
    )
    return parsed if parsed.is_valid else None


def _remote(parent: SpanContext) -> Context:
    return set_span_in_context(NonRecordingSpan(parent))


def provider(
    endpoint: str | None, service: str, count: Count, exporter: SpanExporter | None
) -> TracerProvider:
    """Spans of a service to an OTLP collector, from a thread of its own, or to an exporter at once.

    count: called with one of SPANS and how many. `shutdown` takes twice EXPORT_TIMEOUT_S at most.
    """
    made = TracerProvider(
        sampler=ALWAYS_ON,  # who makes a span has decided to
        resource=Resource({"service.name": service}),
        shutdown_on_exit=False,
    )
    made.add_span_processor(_Counting(count))
    if exporter is not None:
        made.add_span_processor(SimpleSpanProcessor(_Counted(exporter, count)))
    else:
        made.add_span_processor(_Batched(_Counted(_otlp(endpoint or ""), count)))
    return made


def _otlp(endpoint: str) -> SpanExporter:
    insecure = endpoint.startswith("http://")
    return OTLPSpanExporter(endpoint, insecure=insecure, timeout=EXPORT_TIMEOUT_S)


class _Counting(SpanProcessor):
    """Counts what ends."""

    def __init__(self, count: Count) -> None:
        self._count = count

    def on_end(self, span: ReadableSpan) -> None:
        self._count(ENDED, 1)


class _Counted(SpanExporter):
    """Counts what an exporter has taken, and what it could not; after `close_by_s`, nothing."""

    def __init__(self, exporter: SpanExporter, count: Count) -> None:
        self._exporter = exporter
        self._count = count
        self.close_by_s = float("inf")

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = SpanExportResult.FAILURE
        if time.monotonic() < self.close_by_s:
            result = self._exporter.export(spans)
        done = result is SpanExportResult.SUCCESS
        self._count(EXPORTED if done else FAILED, len(spans))
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


class _Batched(BatchSpanProcessor):
    """A batch processor whose end does not wait for a collector that is away."""

    def __init__(self, exporter: _Counted) -> None:
        super().__init__(
            exporter,
            max_queue_size=MAX_QUEUE,
            schedule_delay_millis=EVERY_S * 1000,
            max_export_batch_size=BATCH,
            export_timeout_millis=EXPORT_TIMEOUT_S * 1000,
        )
        self._counted = exporter

    def shutdown(self) -> None:
        self._counted.close_by_s = time.monotonic() + EXPORT_TIMEOUT_S
        super().shutdown()  # type: ignore[no-untyped-call]
