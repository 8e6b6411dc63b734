"""What one recognizer does for many devices, over loopback and with nothing but its own protocol.

A `mien-cloud` process serves the bundle; this process is all the devices, each with a connection
and a stream of its own. First they send whatever their credits allow, then half as much, evenly:
the one shows the rate, the other the time a chunk takes where there is no queue. Both processes
share the machine, so figures per second of the server's processor time stand beside.
"""

import argparse
import asyncio
import math
import tempfile
import time
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from mien.bitstream import Box, EncodedFace
from mien.bundle import Bundle, load_bundle
from mien.cli.child import Child
from mien.messages import EncodedChunk, Hello, upward_to_proto
from mien.probe import load_probe
from mien.v1 import recognition_pb2 as pb
from mien.v1.recognition_pb2_grpc import RecognitionServiceStub

START_TIMEOUT_S = 60.0
PATIENCE_S = 30.0
CHUNK_FACES = 8
STEP_MS = 33


@dataclass
class _Load:
    """What the devices saw. latencies_s: from a chunk written to its result read."""

    latencies_s: list[float] = field(default_factory=list)
    faces: int = 0
    rejected: int = 0


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Rates and quantiles of a saturated and of a half loaded recognizer."""
    bundle = load_bundle(options.bundle, ("probe.npz", "tables.npz"))
    payload = _payload(bundle)
    arguments = ["serve", "--bundles", str(options.bundle), "--port", "0", "--metrics_port", "0"]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "cloud.log"
        with Child("mien-cloud", "cloud_recognizer.cli", arguments, log) as server:
            serving = server.next_event(START_TIMEOUT_S)
            if serving is None:
                raise SystemExit(f"mien-cloud did not start:\n{server.last_words()}")
            return asyncio.run(_measure(options, bundle, payload, serving))


def _payload(bundle: Bundle) -> bytes:
    """A chunk of CHUNK_FACES of the probe's drawn faces, one track that moves."""
    symbols = load_probe(bundle).symbols
    return bundle.codec().encode(
        [
            EncodedFace(
                STEP_MS * index, 7, Box(100 + index, 80, 96, 96), symbols[index % len(symbols)]
            )
            for index in range(CHUNK_FACES)
        ]
    )


async def _measure(
    options: argparse.Namespace, bundle: Bundle, payload: bytes, serving: Any
) -> dict[str, Any]:
    address = f"127.0.0.1:{serving['port']}"
    metrics = f"http://127.0.0.1:{serving['metrics_port']}/metrics"
    figures: dict[str, Any] = {
        "streams": options.streams,
        "seconds": options.seconds,
        "faces_a_chunk": CHUNK_FACES,
        "payload_bytes_a_face": len(payload) / CHUNK_FACES,
        "provider": serving["providers"][0],
    }
    pause_s = 0.0
    for name in ("saturated", "half"):
        before = await asyncio.to_thread(_scrape, metrics)
        load, took_s = await _drive(options, address, bundle.bundle_id, payload, pause_s)
        after = await asyncio.to_thread(_scrape, metrics)
        figures |= {f"{name}_{key}": value for key, value in _figures(load, took_s).items()}
        figures |= {f"{name}_{key}": value for key, value in _server(before, after, load).items()}
        pause_s = 2 * options.streams * CHUNK_FACES * took_s / max(load.faces, 1)
    return figures


async def _drive(
    options: argparse.Namespace, address: str, bundle_id: str, payload: bytes, pause_s: float
) -> tuple[_Load, float]:
    """Let all devices send for `options.seconds`, each a chunk every `pause_s`.

    Returns what they saw, and the seconds until the last of them had its answers.
    """
    load = _Load()
    epoch = time.time_ns()
    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(options.streams):
            hello = Hello(f"device{number}", epoch, 0, (bundle_id,), "a benchmark", "none")
            # Evenly paced devices do not all send at the same moment.
            begin_s = started + pause_s * number / options.streams
            group.create_task(
                _device(address, hello, payload, load, pause_s, begin_s, started + options.seconds)
            )
    return load, time.perf_counter() - started


async def _device(
    address: str,
    hello: Hello,
    payload: bytes,
    load: _Load,
    pause_s: float,
    begin_s: float,
    end_s: float,
) -> None:
    options = (("grpc.use_local_subchannel_pool", 1),)
    async with grpc.aio.insecure_channel(address, options) as channel:
        call = RecognitionServiceStub(channel).StreamFaces(timeout=end_s + PATIENCE_S - _now_s())
        await call.write(upward_to_proto(hello))
        welcome = (await call.read()).welcome
        credits = asyncio.Semaphore(welcome.credits)  # noqa: A001  # the contract's word
        sent_s: dict[int, float] = {}
        reader = asyncio.create_task(_read(call, credits, sent_s, load))
        seq, next_s = 0, begin_s
        while max(_now_s(), next_s) < end_s:
            await asyncio.sleep(max(next_s - _now_s(), 0))
            await credits.acquire()
            seq += 1
            sent_s[seq] = _now_s()
            await call.write(upward_to_proto(EncodedChunk(seq, payload)))
            next_s += pause_s
        await call.done_writing()
        await reader


async def _read(
    call: Any,
    credits: asyncio.Semaphore,  # noqa: A002
    sent_s: dict[int, float],
    load: _Load,
) -> None:
    while isinstance(response := await call.read(), pb.StreamFacesResponse):
        match response.WhichOneof("message"):
            case "result":
                latency_s = _now_s() - sent_s.pop(response.result.seq)
                if response.result.status == pb.ITEM_STATUS_RESULT:
                    load.latencies_s.append(latency_s)
                    load.faces += len(response.result.recognitions)
                else:
                    load.rejected += 1
            case "credits":
                for _ in range(response.credits.chunks):
                    credits.release()


def _now_s() -> float:
    return time.perf_counter()


def _figures(load: _Load, took_s: float) -> dict[str, Any]:
    if not load.latencies_s:
        raise SystemExit(f"nothing was recognised in {took_s:.1f} s: is the machine busy?")
    p50, p99 = np.quantile(load.latencies_s, [0.5, 0.99]) * 1000
    return {
        "recognitions_per_s": load.faces / took_s,
        "p50_ms": float(p50),
        "p99_ms": float(p99),
        "rejected_chunks": load.rejected,
    }


Samples = dict[tuple[str, str], float]


def _scrape(url: str) -> Samples:
    """The server's metrics: (name, upper bound of a bucket or "") → value."""
    page = urllib.request.urlopen(url).read().decode()  # noqa: S310  # our own child
    return {
        (sample.name, sample.labels.get("le", "")): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def _server(before: Samples, after: Samples, load: _Load) -> dict[str, Any]:
    """The server's own measure of its chunks, from received to ready to send, and its costs."""

    def grown(name: str, bound: str = "") -> float:
        return after[(name, bound)] - before[(name, bound)]

    chunks = "mien_cloud_chunk_seconds"
    bounds = [bound for name, bound in after if name == f"{chunks}_bucket"]
    buckets = [(float(bound), grown(f"{chunks}_bucket", bound)) for bound in bounds]
    batches = grown("mien_cloud_batch_faces_count")
    return {
        "server_p50_ms": quantile(buckets, 0.5) * 1000,
        "server_p99_ms": quantile(buckets, 0.99) * 1000,
        "faces_a_batch": grown("mien_cloud_batch_faces_sum") / max(batches, 1),
        "recognitions_per_server_cpu_s": load.faces / grown("process_cpu_seconds_total"),
        "credit_window": after[("mien_cloud_credit_window", "")],
    }


def quantile(buckets: Iterable[tuple[float, float]], share: float) -> float:
    """A quantile of a cumulative histogram, linear inside its bucket, as PromQL has it."""
    ordered = sorted(buckets)
    wanted = share * ordered[-1][1]
    lower, below = 0.0, 0.0
    for bound, count in ordered:
        if count >= wanted:
            if math.isinf(bound) or count == below:
                return lower
            return lower + (bound - lower) * (wanted - below) / (count - below)
        lower, below = bound, count
    return lower
