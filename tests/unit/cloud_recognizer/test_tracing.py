"""What a device's trace context can make a recognizer do, and what not."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from mien.bundle import Bundle
from mien.messages.results import ItemStatus
from mien.spans import CONTEXT_BYTES, parse_context
from mien.tracing import Allowance
from tests.support.recognizer import Device, hello, payload, running_recognizer
from tests.support.traces import traces

CHUNKS = 24


def context(number: int) -> bytes:
    return number.to_bytes(16) + number.to_bytes(8)


@pytest.mark.parametrize("streams", [1, 4])
async def test_a_device_that_asks_for_each_chunk_gets_the_server_s_share(
    bundles: Path, bundle: Bundle, streams: int
) -> None:
    """However many streams it opens for that."""
    exporter = InMemorySpanExporter()
    async with running_recognizer(
        bundles, exporter=exporter, tracing_sample=0.25, credits=CHUNKS
    ) as running:
        for stream in range(streams):
            device = Device(running.stub)
            await device.open(hello(bundle, epoch=1 + stream))
            for seq in range(1, 1 + CHUNKS // streams):
                await device.send(seq, payload(bundle), trace_context=context(1000 * stream + seq))
            answers = await device.close()
            assert {result.status for result in answers.results} == {ItemStatus.RESULT}
        joined = running.sample("traced_chunks_total", outcome="joined")
        limited = running.sample("traced_chunks_total", outcome="limited")
    assert joined + limited == CHUNKS
    assert 1 <= joined <= CHUNKS * 0.25
    assert len(traces(exporter.get_finished_spans())) == joined


async def test_a_malformed_context_costs_its_chunk_nothing_and_is_counted(
    bundles: Path, bundle: Bundle
) -> None:
    exporter = InMemorySpanExporter()
    wrong = [
        b"x",
        bytes(CONTEXT_BYTES),  # no trace id
        context(1)[:16] + bytes(8),  # no span id
        context(1) + b"x",
        b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        b"\xff" * 1_000_000,
    ]
    async with running_recognizer(
        bundles, exporter=exporter, tracing_sample=1.0, credits=len(wrong)
    ) as running:
        device = Device(running.stub)
        await device.open(hello(bundle))
        for seq, bad in enumerate(wrong, 1):
            await device.send(seq, payload(bundle), trace_context=bad)
        answers = await device.close()
        assert [result.status for result in answers.results] == [ItemStatus.RESULT] * len(wrong)
        assert running.sample("traced_chunks_total", outcome="malformed") == len(wrong)
    assert exporter.get_finished_spans() == ()


async def test_a_server_that_does_not_trace_ignores_a_context(
    bundles: Path, bundle: Bundle
) -> None:
    async with running_recognizer(bundles) as running:
        device = Device(running.stub)
        await device.open(hello(bundle))
        await device.send(1, payload(bundle), trace_context=context(1))
        (result,) = (await device.close()).results
        assert result.status is ItemStatus.RESULT
        for outcome in ("joined", "limited", "malformed"):
            assert running.sample("traced_chunks_total", outcome=outcome) == 0


async def test_a_duplicate_is_not_traced_again_and_a_rejection_says_why(
    bundles: Path, bundle: Bundle
) -> None:
    exporter = InMemorySpanExporter()
    damaged = bytearray(payload(bundle))
    damaged[-1] ^= 1
    async with running_recognizer(bundles, exporter=exporter, tracing_sample=1.0) as running:
        device = Device(running.stub)
        await device.open(hello(bundle))
        await device.send(1, bytes(damaged), trace_context=context(1))
        await device.acknowledged(1)
        await device.send(1, bytes(damaged), trace_context=context(2))
        await device.close()
    (trace,) = traces(exporter.get_finished_spans())
    assert trace.outcome("recognise") == "checksum_mismatch"


async def test_a_stream_that_goes_away_ends_its_traces(bundles: Path, bundle: Bundle) -> None:
    exporter = InMemorySpanExporter()
    # Chunks wait for others for longer than the device stays.
    async with running_recognizer(
        bundles, exporter=exporter, tracing_sample=1.0, max_batch_wait_s=1.0
    ) as running:
        device = Device(running.stub)
        await device.open(hello(bundle))
        await device.send(1, payload(bundle), trace_context=context(1))
        newer = Device(running.stub)
        await newer.open(hello(bundle))  # takes the session over
        await device.status()
    (trace,) = traces(exporter.get_finished_spans())
    assert trace.outcome("recognise") == "stream_gone"


@given(st.binary(max_size=60))
def test_any_bytes_are_a_valid_context_or_none(data: bytes) -> None:
    parsed = parse_context(data)
    if parsed is None:
        assert len(data) != CONTEXT_BYTES or not any(data[:16]) or not any(data[16:])
    else:
        assert parsed.trace_id.to_bytes(16) + parsed.span_id.to_bytes(8) == data


@given(st.floats(0, 1), st.lists(st.booleans(), max_size=300))
def test_an_allowance_never_gives_more_than_its_share(share: float, asks: list[bool]) -> None:
    allowance = Allowance(share)
    given_ = 0
    for earned, asked in enumerate(asks, 1):
        allowance.earn()
        given_ += asked and allowance.take()
        assert given_ <= share * earned + 1e-6


@pytest.mark.parametrize(("share", "every"), [(1.0, 1), (0.5, 2), (0.1, 10), (0.01, 100)])
def test_who_always_asks_gets_each_so_many_th(share: float, every: int) -> None:
    allowance = Allowance(share)
    got = []
    for number in range(1, 10 * every + 1):
        allowance.earn()
        if allowance.take():
            got.append(number)
    assert got == [every * n for n in range(1, 11)]
