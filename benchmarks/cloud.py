"""What one recognizer does for many devices, beside a service of JPEG faces in the same run.

A `mien-cloud` process serves the bundle; this process is all the devices, each with a connection
and a stream of its own. First they send whatever their credits allow, then half as much, evenly:
the one shows the rate, the other the time a chunk takes where there is no queue. Then as many
devices send the same faces as JPEG in unary calls to `benchmarks.jpeg_service`. Devices and service
share the machine, so figures per second of the service's processor time stand beside.

With --soak_minutes the recognizer is kept saturated for so long while streams come, are cancelled
and die; what counts is its memory.
"""

import argparse
import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import devices, jpeg_devices, soak
from benchmarks.devices import Load, Pace
from benchmarks.jpeg import chosen_quality, encode
from benchmarks.processes import Samples, cpu_s, grown, grown_buckets, quantile, scrape
from benchmarks.sample import Sample, sample
from benchmarks.services import Served, jpeg_service, recognizer
from edge_encoder.analysis import Analysis
from mien.bitstream import EncodedFace
from mien.bundle import ALL_FILES, Bundle, load_bundle
from trainer.evaluate import walking

CHUNK_FACES = 8
CHUNKS = 32
FACE_INTERVAL_MS = 100
WARM_S = 1.0


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Rates and quantiles of both services, or the recognizer's memory."""
    bundle = load_bundle(options.bundle, (*ALL_FILES, "pixel.onnx"))
    faces = sample(options, bundle)
    payloads = payloads_of(bundle, faces)
    figures: dict[str, Any] = {
        "streams": options.streams,
        "seconds": options.seconds,
        "faces_from": faces.source,
        "faces_a_chunk": CHUNK_FACES,
        "payload_bytes_a_face": sum(map(len, payloads)) / len(payloads) / CHUNK_FACES,
    }
    with tempfile.TemporaryDirectory() as name:
        with recognizer(options.bundle, Path(name)) as served:
            figures["provider"] = served.said["providers"][0]
            if options.soak_minutes:
                return figures | soak.soak(options, served, bundle.bundle_id, payloads)
            figures |= asyncio.run(_recognizer(options, served, bundle.bundle_id, payloads))
        figures |= _jpeg(options, bundle, faces, Path(name))
    rates = [figures[f"{service}_recognitions_per_s"] for service in ("saturated", "jpeg")]
    return figures | {"times_the_jpeg_service": rates[0] / rates[1]}


def payloads_of(
    bundle: Bundle, faces: Sample, chunk_faces: int = CHUNK_FACES, chunks: int = CHUNKS
) -> list[bytes]:
    """Chunks of so many of the faces, those of a device that sees one face ten times a second."""
    wanted = np.arange(chunks * chunk_faces) % len(faces.pixels)
    analysis, codec = Analysis(bundle), bundle.codec()
    encoded = [
        EncodedFace(
            FACE_INTERVAL_MS * index,
            1,
            box,
            analysis.symbols([faces.pixels[face]])[0],
            analysis.level,
        )
        for index, (face, box) in enumerate(zip(wanted, walking(len(wanted)), strict=True))
    ]
    starts = range(0, len(encoded), chunk_faces)
    return [codec.encode(encoded[start : start + chunk_faces]) for start in starts]


async def _recognizer(
    options: argparse.Namespace, served: Served, bundle_id: str, payloads: Sequence[bytes]
) -> dict[str, Any]:
    pace = Pace(options.streams, options.seconds)
    figures: dict[str, Any] = {}
    await devices.drive(served.address, bundle_id, payloads, Pace(options.streams, WARM_S))
    for name in ("saturated", "half"):
        before = await asyncio.to_thread(scrape, served.metrics_url)
        load, took_s = await devices.drive(served.address, bundle_id, payloads, pace)
        after = await asyncio.to_thread(scrape, served.metrics_url)
        seen = _seen(load, took_s) | _server(before, after, load)
        figures |= {f"{name}_{key}": value for key, value in seen.items()}
        pause_s = 2 * options.streams * CHUNK_FACES * took_s / max(load.faces, 1)
        pace = Pace(options.streams, options.seconds, pause_s)
    return figures


def _jpeg(
    options: argparse.Namespace, bundle: Bundle, faces: Sample, folder: Path
) -> dict[str, Any]:
    choice = chosen_quality(bundle, faces)
    files = [encode(face, choice.quality) for face in faces.pixels[: CHUNKS * CHUNK_FACES]]
    with jpeg_service(options.bundle, folder) as served:
        asyncio.run(jpeg_devices.drive(served.address, files, Pace(options.streams, WARM_S)))
        spent_s = cpu_s(served.pid)
        pace = Pace(options.streams, options.seconds)
        load, took_s = asyncio.run(jpeg_devices.drive(served.address, files, pace))
        spent_s = cpu_s(served.pid) - spent_s
    seen = _seen(load, took_s) | {"recognitions_per_server_cpu_s": load.faces / spent_s}
    return {
        **choice.figures(),
        "jpeg_bytes_a_face": sum(map(len, files)) / len(files),
        **{f"jpeg_{key}": value for key, value in seen.items()},
    }


def _seen(load: Load, took_s: float) -> dict[str, Any]:
    if not load.latencies_s:
        raise SystemExit(f"nothing was recognised in {took_s:.1f} s: is the machine busy?")
    p50, p99 = np.quantile(load.latencies_s, [0.5, 0.99]) * 1000
    return {
        "recognitions_per_s": load.faces / took_s,
        "p50_ms": float(p50),
        "p99_ms": float(p99),
        "rejected_chunks": load.rejected,
    }


def _server(before: Samples, after: Samples, load: Load) -> dict[str, Any]:
    """The server's own measure of its chunks, from received to ready to send, and its costs."""
    buckets = grown_buckets(before, after, "mien_cloud_chunk_seconds")
    batches = grown(before, after, "mien_cloud_batch_faces_count")
    return {
        "server_p50_ms": quantile(buckets, 0.5) * 1000,
        "server_p99_ms": quantile(buckets, 0.99) * 1000,
        "faces_a_batch": grown(before, after, "mien_cloud_batch_faces_sum") / max(batches, 1),
        "recognitions_per_server_cpu_s": load.faces
        / grown(before, after, "process_cpu_seconds_total"),
        "credit_window": after[("mien_cloud_credit_window", "")],
    }
