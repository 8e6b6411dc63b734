"""One trace from capture to result: a real device, a real recognizer, exporters in memory."""

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from edge_encoder.config import EdgeConfig
from edge_encoder.device import run
from mien import spans
from mien.bundle import Bundle
from mien.errors import ConfigError
from mien.messages.upward import EncodedChunk, upward_to_proto
from mien.tracing import Stage
from tests.support.calls import calls_into
from tests.support.collector import Collector, collecting
from tests.support.recognizer import running_recognizer
from tests.support.scripted_server import DeviceStream, scripted_server
from tests.support.traces import Traced, traces
from tests.support.uplinks import chunk, device, result, welcome
from tests.unit.edge_encoder.conftest import CLIP_FRAMES

ROOT = Path(__file__).parents[3]
CHUNK_FACES = 8  # the default
CHUNKS = CLIP_FRAMES // CHUNK_FACES
ON_THE_DEVICE = {"chunk", "capture", "detect", "analyse", "encode", "uplink"}
ON_THE_SERVER = {"recognise", "intake", "queue", "batch", "decode", "classify", "publish"}


async def streamed(
    bundle: Bundle, clip: Path, results: Path, *, cloud: float = 1.0, **edge: Any
) -> tuple[list[Traced], InMemorySpanExporter, InMemorySpanExporter]:
    """Stream the clip with exporters in memory; the traces of both ends put together."""
    there, here = InMemorySpanExporter(), InMemorySpanExporter()
    async with running_recognizer(
        bundle.folder, exporter=there, tracing_sample=cloud, credits=CHUNKS
    ) as server:
        address = f"127.0.0.1:{server.serving.port}"
        config = EdgeConfig(
            *(str(clip), address, bundle.folder),
            **({"results": str(results), "device_id": "porch-camera"} | edge),
        )
        assert await run(config, here) == 0
    sent, received = here.get_finished_spans(), there.get_finished_spans()
    return traces(sent, received), here, there


async def test_a_chunk_is_one_trace_from_capture_to_result(
    bundle: Bundle, clip: Path, tmp_path: Path
) -> None:
    found, _, _ = await streamed(bundle, clip, tmp_path / "r", tracing_sample=1.0)
    assert len(found) == CHUNKS
    for trace in found:
        assert trace.names == ON_THE_DEVICE | ON_THE_SERVER
        for stage in ("capture", "detect", "analyse"):
            assert len([span for span in trace.spans if span.name == stage]) == CHUNK_FACES
        assert trace.parent("chunk") is None
        assert trace.parent("uplink") == trace.parent("encode") == "chunk"
        assert trace.parent("recognise") == "uplink"
        assert {trace.parent(name) for name in ON_THE_SERVER - {"recognise"}} == {"recognise"}
        for name in ("chunk", "uplink", "recognise"):
            assert trace.outcome(name) == "result"
        assert {trace.named(name).attributes["faces"] for name in ("chunk", "recognise")} == {
            CHUNK_FACES
        }


async def test_the_spans_of_a_trace_follow_one_another_inside_its_root(
    bundle: Bundle, clip: Path, tmp_path: Path
) -> None:
    found, _, _ = await streamed(bundle, clip, tmp_path / "r", tracing_sample=1.0)
    # One machine, so one clock, but each end has read it on its own.
    slack_ns = 50_000_000
    for trace in found:
        root = trace.named("chunk")
        for span in trace.spans:
            assert root.start_time - slack_ns <= span.start_time <= span.end_time
            assert span.end_time <= root.end_time + slack_ns
        order = [trace.named(name) for name in ("intake", "queue", "batch", "publish")]
        for before, after in itertools.pairwise(order):
            assert before.end_time <= after.start_time
        batch = trace.named("batch")
        for name in ("decode", "classify"):
            assert batch.start_time - slack_ns <= trace.named(name).start_time
            assert trace.named(name).end_time <= batch.end_time
        assert trace.named("encode").end_time <= trace.named("uplink").start_time


async def test_a_chunk_that_is_written_to_the_spool_says_so(
    bundle: Bundle, clip: Path, tmp_path: Path
) -> None:
    found, _, _ = await streamed(
        bundle, clip, tmp_path / "r", tracing_sample=1.0, spool=tmp_path / "spool"
    )
    assert len(found) == CHUNKS
    for trace in found:
        assert trace.parent("spool") == "chunk"


async def test_a_share_of_the_chunks_is_traced_at_both_ends(
    bundle: Bundle, clip: Path, tmp_path: Path
) -> None:
    found, here, there = await streamed(
        bundle, clip, tmp_path / "r", tracing_sample=0.25, cloud=0.25, chunk_faces=2
    )
    assert len(found) == CLIP_FRAMES // 2 // 4
    assert all(trace.names >= {"chunk", "recognise"} for trace in found)
    assert {span.resource.attributes["service.name"] for span in here.get_finished_spans()} == {
        "mien-edge"
    }
    assert {span.resource.attributes["service.name"] for span in there.get_finished_spans()} == {
        "mien-cloud"
    }


async def test_no_span_says_who_or_where_anything_was_seen(
    bundle: Bundle, clip: Path, tmp_path: Path
) -> None:
    allowed = {"faces", "chunks", "payload_bytes", "outcome"}
    found, _, _ = await streamed(
        bundle, clip, tmp_path / "r", tracing_sample=1.0, spool=tmp_path / "spool"
    )
    words = {"porch-camera", *bundle.manifest.expressions}
    for span in (span for trace in found for span in trace.spans):
        assert set(span.attributes or {}) <= allowed
        assert set(span.resource.attributes) == {"service.name"}
        assert not span.events
        assert not span.links
        said = span.to_json()
        assert not [word for word in words if word in said]


async def test_a_chunk_that_is_sent_again_says_so(bundle: Bundle) -> None:
    """The stream breaks before the answer: one trace, two uplinks, each of its own context."""
    contexts: list[bytes] = []

    async def breaks(stream: DeviceStream) -> None:
        await stream.read()
        await stream.write(welcome(bundle))
        message = await stream.read()
        assert isinstance(message, EncodedChunk)
        contexts.append(message.trace_context)

    async def answers(stream: DeviceStream) -> None:
        await stream.read()
        await stream.write(welcome(bundle))
        while isinstance(message := await stream.read(), EncodedChunk):
            contexts.append(message.trace_context)
            await stream.write(result(message.seq))

    exporter = InMemorySpanExporter()
    counted: list[str] = []
    provider = spans.provider(None, "test", lambda what, _: counted.append(what), exporter)
    tracing = spans.Tracing(provider.get_tracer("test"), 1.0, lambda what, _: None)
    async with scripted_server(breaks, answers) as (address, _), device(address, bundle) as edge:
        traced = chunk(bundle)
        trace = tracing.begin([Stage("encode", 1.0, 2.0)])
        await edge.uplink.put(type(traced)(traced.payload, traced.frames, trace=trace))
        await edge.uplink.finish()
    (found,) = traces(exporter.get_finished_spans())
    uplinks = [span for span in found.spans if span.name == "uplink"]
    assert [span.attributes["outcome"] for span in uplinks] == ["sent_again", "result"]
    assert [spans.parse_context(context).span_id for context in contexts] == [
        span.context.span_id for span in uplinks
    ]
    assert counted.count("ended") == counted.count("exported") == len(found.spans)


async def test_a_chunk_that_a_full_queue_drops_ends_its_trace(bundle: Bundle) -> None:
    exporter = InMemorySpanExporter()
    provider = spans.provider(None, "test", lambda what, _: None, exporter)
    tracing = spans.Tracing(provider.get_tracer("test"), 1.0, lambda what, _: None)
    async with device("127.0.0.1:9", bundle, queue_chunks=1, give_up_s=600) as edge:
        for seed in range(2):
            plain = chunk(bundle, seed)
            trace = tracing.begin([Stage("encode", 1.0, 2.0)])
            edge.uplink.offer(type(plain)(plain.payload, plain.frames, trace=trace))
    (lost,) = traces(exporter.get_finished_spans())[:1]
    assert lost.names == {"chunk", "encode"}
    assert lost.outcome("chunk") == "uplink_full"


def test_a_chunk_that_is_not_traced_costs_no_byte_and_one_that_is_26(bundle: Bundle) -> None:
    payload = chunk(bundle).payload
    # tag, length, and what they announce: seq 1 of two bytes, the payload.
    inner = 2 + 2 + len(payload)
    plain = upward_to_proto(EncodedChunk(1, payload)).SerializeToString()
    assert len(plain) == 2 + inner
    exporter = InMemorySpanExporter()
    provider = spans.provider(None, "test", lambda what, _: None, exporter)
    tracing = spans.Tracing(provider.get_tracer("test"), 1.0, lambda what, _: None)
    trace = tracing.begin([Stage("encode", 1.0, 2.0)])
    assert trace is not None
    context = trace.sent(len(payload))
    traced = upward_to_proto(EncodedChunk(1, payload, trace_context=context)).SerializeToString()
    grown = len(traced) - len(plain)
    # One byte more where the message's length needs a second one.
    assert grown == 2 + spans.CONTEXT_BYTES + (2 + inner < 130 <= 2 + inner + grown)


async def test_without_an_endpoint_nothing_of_tracing_is_called_while_it_streams(
    bundle: Bundle, clip: Path, tmp_path: Path
) -> None:
    """What tracing costs when it is off: no call. When it is on, the same test sees calls."""

    async def calls(exporter: InMemorySpanExporter | None) -> int:
        async with running_recognizer(bundle.folder, exporter=exporter) as server:
            address = f"127.0.0.1:{server.serving.port}"
            config = EdgeConfig(str(clip), address, bundle.folder, results=str(tmp_path / "r"))
            # Called once at each end, when it starts and never again.
            opening = {"open_tracing", "check_endpoint"}
            with calls_into(("mien/tracing.py", "mien/spans.py"), but=opening) as counted:
                assert await run(config, exporter) == 0
            assert server.sample("faces_total", rpc="StreamFaces") == CLIP_FRAMES
        return counted.total()

    assert await calls(None) == 0
    assert await calls(InMemorySpanExporter()) > 0


async def test_spans_of_both_ends_reach_a_collector(
    bundle: Bundle, clip: Path, tmp_path: Path
) -> None:
    with collecting() as collector:
        await stream_to(collector, bundle, clip, tmp_path)
    assert_whole(collector)


async def stream_to(collector: Collector, bundle: Bundle, clip: Path, folder: Path) -> None:
    """Both ends trace every chunk of a clip and export before they end."""
    async with running_recognizer(
        bundle.folder, tracing_endpoint=collector.endpoint, tracing_sample=1.0
    ) as server:
        address = f"127.0.0.1:{server.serving.port}"
        config = EdgeConfig(
            *(str(clip), address, bundle.folder),
            results=str(folder / "r"),
            tracing_endpoint=collector.endpoint,
            tracing_sample=1.0,
        )
        assert await run(config) == 0
    assert server.sample("traced_chunks_total", outcome="joined") == CHUNKS
    ended = server.sample("spans_total", outcome="ended")
    assert ended == server.sample("spans_total", outcome="exported") == CHUNKS * len(ON_THE_SERVER)
    assert server.sample("spans_total", outcome="failed") == 0


def assert_whole(collector: Collector) -> None:
    names = {service: set(spans) for service, spans in collector.names.items()}
    assert names == {"mien-edge": ON_THE_DEVICE, "mien-cloud": ON_THE_SERVER}


async def test_a_collector_that_is_away_costs_spans_and_no_face(
    bundle: Bundle, clip: Path, tmp_path: Path
) -> None:
    nobody = "http://127.0.0.1:9"
    async with running_recognizer(
        bundle.folder, tracing_endpoint=nobody, tracing_sample=1.0
    ) as server:
        address = f"127.0.0.1:{server.serving.port}"
        config = EdgeConfig(
            *(str(clip), address, bundle.folder),
            results=str(tmp_path / "r"),
            tracing_endpoint=nobody,
            tracing_sample=1.0,
        )
        assert await run(config) == 0
        assert server.sample("faces_total", rpc="StreamFaces") == CLIP_FRAMES
    failed = server.sample("spans_total", outcome="failed")
    assert failed == server.sample("spans_total", outcome="ended") > 0


@pytest.mark.parametrize("module", ["edge_encoder.device", "cloud_recognizer.server"])
def test_a_service_without_the_extra_starts_and_names_it_when_it_is_asked_for(module: str) -> None:
    script = f"""
import sys
sys.modules["opentelemetry"] = None  # not installed
import {module}
from mien.errors import ConfigError
from mien.tracing import open_tracing
count = lambda what, number: None
with open_tracing(None, 1.0, "test", chunks=count, spans=count) as tracing:
    assert tracing is None
try:
    with open_tracing("http://collector:4317", 1.0, "test", chunks=count, spans=count):
        pass
except ConfigError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert "mien[tracing]" in done.stdout


@pytest.mark.parametrize(
    "wrong", ["collector:4317", "http://user:word@collector", "http://a b", ""]
)
def test_an_endpoint_that_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigError, match="tracing_endpoint"):
        EdgeConfig("0", tracing_endpoint=wrong)
