"""Damaged chunks amid good ones, on one stream of a real recognizer."""

from collections.abc import Iterator
from queue import SimpleQueue
from urllib.request import urlopen

import grpc
import numpy as np
import pytest

from mien.bitstream import Box, EncodedFace
from mien.bundle import Bundle, load_bundle
from mien.probe import load_probe
from mien.v1 import recognition_pb2 as pb
from mien.v1.recognition_pb2_grpc import RecognitionServiceStub
from tests.support.services import PATIENCE_S, Cloud

FACES = 4
CHUNKS = 24


@pytest.fixture(scope="module")
def payloads(bundle: Bundle) -> list[bytes]:
    """Sound chunks of four faces each, from the bundle's own probe."""
    symbols = load_probe(load_bundle(bundle.folder, ("probe.npz",))).symbols
    codec = bundle.codec()
    faces = [
        EncodedFace(40 * index, 1, Box(10, 20, 64, 80), symbols[index % len(symbols)])
        for index in range(FACES * CHUNKS)
    ]
    return [codec.encode(faces[i : i + FACES]) for i in range(0, len(faces), FACES)]


def damaged(payload: bytes, seed: int) -> bytes:
    """A bit flipped, the end cut off, something put behind it, or noise altogether."""
    random = np.random.Generator(np.random.PCG64(seed))
    match seed % 4:
        case 0:
            bit = int(random.integers(8 * len(payload)))
            flipped = bytearray(payload)
            flipped[bit // 8] ^= 1 << bit % 8
            return bytes(flipped)
        case 1:
            return payload[: int(random.integers(len(payload)))]
        case 2:
            return payload + random.bytes(3)
    return bytes(random.bytes(len(payload)))


def test_damaged_chunks_are_rejected_one_by_one_and_the_stream_goes_on(
    cloud: Cloud, bundle: Bundle, payloads: list[bytes]
) -> None:
    sent = [
        damaged(payload, seed) if seed % 3 == 1 else payload
        for seed, payload in enumerate(payloads)
    ]
    with grpc.insecure_channel(cloud.address) as channel:
        results = dict(streamed(RecognitionServiceStub(channel), bundle, sent))
    assert set(results) == set(range(1, CHUNKS + 1))
    for seq, result in results.items():
        if (seq - 1) % 3 == 1:
            assert result.status == pb.ITEM_STATUS_REJECTED
            assert result.error.code
            assert not result.recognitions
        else:
            assert result.status == pb.ITEM_STATUS_RESULT
            assert [face.index for face in result.recognitions] == list(range(FACES))


def streamed(
    stub: RecognitionServiceStub, bundle: Bundle, sent: list[bytes]
) -> Iterator[tuple[int, pb.ChunkResult]]:
    """Send the payloads within the credits granted, until all are acknowledged."""
    requests: SimpleQueue[pb.StreamFacesRequest | None] = SimpleQueue()
    hello = pb.Hello(device_id="e2e", epoch=1, bundle_ids=[bundle.bundle_id])
    requests.put(pb.StreamFacesRequest(hello=hello))
    waiting = [pb.EncodedChunk(seq=seq, payload=body) for seq, body in enumerate(sent, start=1)]
    call = stub.StreamFaces(iter(requests.get, None), timeout=PATIENCE_S)
    for response in call:
        match response.WhichOneof("message"):
            case "welcome":
                granted = response.welcome.credits
            case "credits":
                granted = response.credits.chunks
            case "result":
                granted = 0
                yield response.result.seq, response.result
            case "acknowledgement" if response.acknowledgement.seq == len(sent):
                requests.put(None)
                continue
            case _:
                continue
        for chunk in waiting[:granted]:
            requests.put(pb.StreamFacesRequest(chunk=chunk))
        waiting = waiting[granted:]


def test_damaged_payloads_of_a_call_get_an_answer_each(cloud: Cloud, payloads: list[bytes]) -> None:
    sent = [damaged(payloads[seed % CHUNKS], seed) for seed in range(255)] + payloads[:1]
    with grpc.insecure_channel(cloud.address) as channel:
        stub = RecognitionServiceStub(channel)
        response = stub.Recognize(pb.RecognizeRequest(payloads=sent), timeout=PATIENCE_S)
    *rejected, good = response.results
    assert {result.status for result in rejected} == {pb.ITEM_STATUS_REJECTED}
    assert good.status == pb.ITEM_STATUS_RESULT
    assert len(good.recognitions) == FACES


def test_the_rejections_are_counted_by_code(cloud: Cloud, payloads: list[bytes]) -> None:
    with grpc.insecure_channel(cloud.address) as channel:
        stub = RecognitionServiceStub(channel)
        stub.Recognize(pb.RecognizeRequest(payloads=[payloads[0][:3]]), timeout=PATIENCE_S)
    with urlopen(f"http://127.0.0.1:{cloud.metrics_port}/metrics") as page:
        text = page.read().decode()
    assert 'mien_cloud_rejected_chunks_total{code="truncated"}' in text
