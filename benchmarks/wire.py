"""Bytes on the wire: what a device's interface carries, TLS, TCP and IP included, both ways.

    this process, a device ═ veth, counted ═ TLS ─ mien-cloud, and the service of JPEG faces

One device sees one face ten times a second. It streams chunks of half a second and of two, through
gRPC's own TLS and with the channel options of `mien-edge`; then it sends the same faces as JPEG, a
unary call each. What opening a connection costs stands apart. With --clip, `mien-edge run` itself
plays the clip at its own speed, and everything counts, the opening included.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc

from benchmarks.cloud import FACE_INTERVAL_MS, payloads_of
from benchmarks.jpeg import chosen_quality, encode
from benchmarks.jpeg_devices import unary
from benchmarks.network import (
    SERVER_ADDRESS,
    Traffic,
    lay_cable,
    leave_for_own_network,
    traffic,
)
from benchmarks.sample import Sample, sample
from benchmarks.services import START_TIMEOUT_S
from benchmarks.tls import client_side, proxy
from edge_encoder.dialling import STREAM_CHANNEL_OPTIONS
from mien.bundle import ALL_FILES, Bundle, load_bundle
from mien.cli.child import Child
from mien.messages.upward import EncodedChunk, Hello, upward_to_proto
from mien.v1 import recognition_pb2 as pb
from mien.v1.recognition_pb2_grpc import RecognitionServiceStub

CHUNK_SECONDS = (0.5, 2.0)
# Acknowledgements that TCP holds back are sent after 40 ms.
QUIET_S = 0.3


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Bytes a face up and down, of the stream with each chunk length and of the JPEG service."""
    leave_for_own_network()
    bundle = load_bundle(options.bundle, (*ALL_FILES, "pixel.onnx"))
    faces = sample(options, bundle)
    with tempfile.TemporaryDirectory() as name:
        log = Path(name) / "server.log"
        arguments = ["--bundle", str(options.bundle)]
        with Child("server", "benchmarks.wire_server", arguments, log) as server:
            _said(server, "cable")
            lay_cable(server.process.pid)
            serving = _said(server, "serving")
            figures = asyncio.run(_measure(options, bundle, faces, serving))
            if options.clip is not None:
                figures |= asyncio.run(_clip(options, serving, Path(name)))
    return {"faces_from": faces.source, "faces_a_second": 1000 / FACE_INTERVAL_MS, **figures}


def _said(server: Child, event: str) -> dict[str, Any]:
    said = server.next_event(2 * START_TIMEOUT_S)  # there are two services to start
    if said is None or said["event"] != event:
        raise SystemExit(f"the far end did not start:\n{server.last_words()}")
    return dict(said)


async def _measure(
    options: argparse.Namespace, bundle: Bundle, faces: Sample, serving: dict[str, Any]
) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for chunk_s in CHUNK_SECONDS:
        size = round(1000 * chunk_s / FACE_INTERVAL_MS)
        count = max(round(options.seconds / chunk_s), 2)
        payloads = payloads_of(bundle, faces, size, count)
        async with _channel(serving, "recognizer") as channel:
            opening, streamed = await _stream(channel, bundle.bundle_id, payloads, chunk_s)
        name = f"chunks_of_{chunk_s:g}_s"
        figures[f"{name}_payload_bytes_a_face"] = sum(map(len, payloads)) / (size * count)
        figures |= _each(name, streamed, size * count)
        figures |= {"opening_uplink_bytes": opening.up_bytes}
    choice = chosen_quality(bundle, faces)
    files = [encode(face, choice.quality) for face in faces.pixels[:256]]
    count = round(1000 * options.seconds / FACE_INTERVAL_MS)
    async with _channel(serving, "jpeg") as channel:
        opening, called = await _call(channel, files, count)
    figures |= choice.figures()
    figures["jpeg_file_bytes_a_face"] = sum(map(len, files)) / len(files)
    figures |= _each("jpeg", called, count) | {"jpeg_opening_uplink_bytes": opening.up_bytes}
    for chunk_s in CHUNK_SECONDS:
        ours = figures[f"chunks_of_{chunk_s:g}_s_uplink_bytes_a_face"]
        ratio = figures["jpeg_uplink_bytes_a_face"] / ours
        figures[f"jpeg_times_chunks_of_{chunk_s:g}_s"] = ratio
    return figures


def _channel(serving: dict[str, Any], service: str) -> grpc.aio.Channel:
    credentials = grpc.ssl_channel_credentials(serving["certificate"].encode())
    address = f"{SERVER_ADDRESS}:{serving[service]}"
    return grpc.aio.secure_channel(address, credentials, STREAM_CHANNEL_OPTIONS)


async def _stream(
    channel: grpc.aio.Channel, bundle_id: str, payloads: Sequence[bytes], chunk_s: float
) -> tuple[Traffic, Traffic]:
    """What the opening took, and what the chunks with their answers did."""
    before = traffic()
    call = RecognitionServiceStub(channel).StreamFaces()
    hello = Hello("front-door", time.time_ns(), 0, (bundle_id,), "a benchmark", "none")
    await call.write(upward_to_proto(replace(hello, takes_settled=True)))
    await call.read()
    await asyncio.sleep(QUIET_S)
    opened = traffic()
    for seq, payload in enumerate(payloads, 1):
        await call.write(upward_to_proto(EncodedChunk(seq, payload)))
        _, response = await asyncio.gather(asyncio.sleep(chunk_s), call.read())
        if not isinstance(response, pb.StreamFacesResponse) or any(
            result.status != pb.ITEM_STATUS_RESULT for result in response.settled.results
        ):
            raise SystemExit(f"chunk {seq} was not recognised: {response}")
    await asyncio.sleep(QUIET_S)
    done = traffic()
    await call.done_writing()
    return opened - before, done - opened


async def _call(
    channel: grpc.aio.Channel, files: Sequence[bytes], count: int
) -> tuple[Traffic, Traffic]:
    """What the opening and the first call took, and what `count` further calls did."""
    before = traffic()
    recognise = unary(channel)
    await recognise(pb.EncodedChunk(seq=1, payload=files[0]))
    await asyncio.sleep(QUIET_S)
    opened = traffic()
    for seq in range(1, count + 1):
        request = pb.EncodedChunk(seq=seq, payload=files[seq % len(files)])
        await asyncio.gather(asyncio.sleep(FACE_INTERVAL_MS / 1000), recognise(request))
    await asyncio.sleep(QUIET_S)
    return opened - before, traffic() - opened


async def _clip(
    options: argparse.Namespace, serving: dict[str, Any], folder: Path
) -> dict[str, Any]:
    """The real device on the real clip; TLS is put before its plain text on its own machine."""
    outward = client_side(serving["certificate"].encode())
    target = (SERVER_ADDRESS, int(serving["recognizer"]))
    async with proxy("127.0.0.1", target, outward=outward) as port:
        before = traffic()
        summary = await asyncio.to_thread(_edge, options, port, folder)
        await asyncio.sleep(QUIET_S)
        spent = traffic() - before
    faces = int(summary["faces_recognised"])
    return {
        "clip_faces": faces,
        "clip_payload_bytes_a_face": summary["payload_bytes_per_face"],
        **_each("clip", spent, faces),
    }


def _edge(options: argparse.Namespace, port: int, folder: Path) -> dict[str, Any]:
    arguments = ["run", "--source", str(options.clip), "--server", f"127.0.0.1:{port}"]
    arguments += ["--bundle", str(options.bundle), "--pace", "true"]
    if options.detector_model is not None:
        arguments += ["--detector_model", str(options.detector_model)]
    with Child("mien-edge", "edge_encoder.cli", arguments, folder / "edge.log") as edge:
        while (event := edge.next_event(START_TIMEOUT_S)) is not None:
            if event["event"] == "summary":
                return dict(event)
        raise SystemExit(f"mien-edge told no figures:\n{edge.last_words()}")


def _each(name: str, traffic: Traffic, faces: int) -> dict[str, float]:
    return {
        f"{name}_uplink_bytes_a_face": traffic.up_bytes / faces,
        f"{name}_uplink_packets_a_face": traffic.up_packets / faces,
        f"{name}_downlink_bytes_a_face": traffic.down_bytes / faces,
    }
