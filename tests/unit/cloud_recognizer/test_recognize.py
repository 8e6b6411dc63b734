"""The unary RPC, with good payloads and with what an attacker or a bad link would send."""

import asyncio
import gc
import shutil
import tracemalloc
from pathlib import Path

import grpc
import numpy as np
import pytest

from mien.bundle import Bundle, write_manifest
from mien.messages.results import ChunkResult, ItemStatus
from mien.v1 import recognition_pb2 as pb
from tests.support.recognizer import (
    RPC_TIMEOUT_S,
    Device,
    Running,
    eventually,
    hello,
    payload,
    retry_delay_s,
    running_recognizer,
)
from tests.support.reseal import reseal
from tests.support.tiny_bundle import EXPRESSIONS, make_tiny_bundle

CODES = {
    "truncated",
    "checksum_mismatch",
    "unsupported_version",
    "wrong_bundle",
    "limit_exceeded",
    "malformed",
}


async def recognize(running: Running, payloads: list[bytes]) -> list[ChunkResult]:
    response = await running.stub.Recognize(
        pb.RecognizeRequest(payloads=payloads), timeout=RPC_TIMEOUT_S
    )
    return [ChunkResult.from_proto(result) for result in response.results]


async def test_each_payload_gets_a_result_in_its_place(
    bundles: Path, bundle: Bundle, older: Bundle
) -> None:
    good = payload(bundle, faces=2)
    sent = [good, good[:-2], payload(older, faces=3), b"", b"\x20\x00" * 9000, b"\x1f" * 40, good]
    async with running_recognizer(bundles) as running:
        results = await recognize(running, sent)
    assert [result.seq for result in results] == [1, 2, 3, 4, 5, 6, 7]
    assert [len(result.recognitions) for result in results] == [2, 0, 3, 0, 0, 0, 2]
    assert [result.error.code if result.error else "" for result in results] == [
        "",
        "checksum_mismatch",
        "",
        "truncated",
        "limit_exceeded",
        "unsupported_version",
        "",
    ]
    # The payload's own tag chose the bundle.
    assert [results[0].bundle_id, results[2].bundle_id] == [bundle.bundle_id, older.bundle_id]


def twins(folder: Path) -> tuple[Bundle, Bundle]:
    """Two bundles whose payloads start with the same tag."""
    trial = make_tiny_bundle(folder / "trial")
    manifest, seen = trial.manifest, dict[str, str]()
    for count in range(17):  # there are 16 tags
        name = f"twin {count}"
        bundle_id = write_manifest(
            trial.folder,
            name=name,
            created=manifest.created,
            expressions=manifest.expressions,
            image=manifest.image,
            latent=manifest.latent,
            figures=manifest.figures,
        )
        other = seen.setdefault(bundle_id[0], name)
        if other != name:
            shutil.rmtree(trial.folder)
            made = (make_tiny_bundle(folder / n.replace(" ", "-"), name=n) for n in (other, name))
            return next(made), next(made)
    raise AssertionError("4096 bundles, and no two of 4096 tags are the same")


async def test_of_bundles_with_one_tag_the_checksum_chooses(tmp_path: Path) -> None:
    ours, twin = twins(tmp_path)
    assert ours.bundle_id[0] == twin.bundle_id[0]
    assert ours.bundle_id != twin.bundle_id
    good = payload(ours)
    sent = [payload(twin), good, good[:-1] + b"?", payload(twin, faces=2)]
    async with running_recognizer(tmp_path) as running:
        results = await recognize(running, sent)
    named = [twin.bundle_id, ours.bundle_id, "", twin.bundle_id]
    assert [result.bundle_id for result in results] == named
    assert [len(result.recognitions) for result in results] == [3, 3, 0, 2]
    assert results[2].error is not None
    assert results[2].error.code == "checksum_mismatch"


async def test_the_response_names_the_expressions_of_every_bundle_that_recognised_a_face(
    bundles: Path, bundle: Bundle, older: Bundle, tmp_path: Path
) -> None:
    served = tmp_path / "served"
    words = [f"{name} or so" for name in older.manifest.expressions]
    ours = reseal(served / "tiny", bundle)
    worded = reseal(served / "worded", older, expressions=words)
    expected = {ours.bundle_id: list(EXPRESSIONS), worded.bundle_id: words}

    calls: list[list[Bundle | bytes]] = [
        [],
        [b"damaged"],
        [ours],
        [worded],
        [worded, ours, b"damaged", worded],
    ]
    async with running_recognizer(served) as running:
        for sent in calls:
            payloads = [item if isinstance(item, bytes) else payload(item) for item in sent]
            response = await running.stub.Recognize(pb.RecognizeRequest(payloads=payloads))
            named = {entry.bundle_id: list(entry.expressions) for entry in response.bundles}
            used = {item.bundle_id for item in sent if isinstance(item, Bundle)}
            assert len(named) == len(response.bundles)
            assert named == {bundle_id: expected[bundle_id] for bundle_id in used}
            for result in response.results:
                for face in result.recognitions:
                    best = int(np.argmax(face.probabilities))
                    assert face.expression == named[result.bundle_id][best]


async def test_a_payload_of_a_bundle_that_is_not_served_is_rejected(
    bundles: Path, older: Bundle
) -> None:
    async with running_recognizer(bundles / "tiny") as running:
        (result,) = await recognize(running, [payload(older)])
    assert result.error is not None
    assert result.error.code == "wrong_bundle"
    assert "ListBundles" in result.error.message


async def test_more_than_256_payloads_are_refused(bundles: Path, bundle: Bundle) -> None:
    chunk = payload(bundle, faces=1)
    async with running_recognizer(bundles) as running:
        assert len(await recognize(running, [chunk] * 256)) == 256
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await recognize(running, [chunk] * 257)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "256" in (caught.value.details() or "")


async def test_calls_beyond_what_may_wait_are_refused_and_streams_keep_their_places(
    bundles: Path, bundle: Bundle
) -> None:
    chunk = payload(bundle, faces=1)
    async with running_recognizer(
        bundles, max_recognize_chunks=512, max_batch_faces=4096, max_batch_wait_s=1.0
    ) as running:
        waiting = [asyncio.ensure_future(recognize(running, [chunk] * 200)) for _ in range(2)]
        await eventually(lambda: running.sample("queue_chunks") == 400)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await recognize(running, [chunk] * 113)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert retry_delay_s(caught.value) > 0
        assert running.sample("dropped_total", reason="queue_full") == 113
        device = Device(running.stub)
        await device.open(hello(bundle))
        await device.send(1, chunk)
        assert [len(await call) for call in waiting] == [200, 200]
        assert len((await device.close()).results) == 1
        assert len(await recognize(running, [chunk] * 256)) == 256


async def test_long_payloads_count_as_many_places_as_they_take_memory(
    bundles: Path, bundle: Bundle
) -> None:
    long = bytes(16384)
    async with running_recognizer(
        bundles, max_recognize_chunks=512, max_batch_faces=4096, max_batch_wait_s=1.0
    ) as running:
        # Too long for the queue, so it is rejected; until then it takes 400 chunks' memory.
        waiting = asyncio.ensure_future(recognize(running, [payload(bundle), long * 400]))
        await eventually(lambda: running.sample("queue_chunks") == 1)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await recognize(running, [long] * 120)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert [result.status for result in await waiting] == [
            ItemStatus.RESULT,
            ItemStatus.REJECTED,
        ]
        assert len(await recognize(running, [long] * 120)) == 120


async def test_a_cancelled_call_withdraws_its_chunks(bundles: Path, bundle: Bundle) -> None:
    async with running_recognizer(bundles, max_batch_wait_s=1.0, max_batch_faces=64) as running:
        call = running.stub.Recognize(
            pb.RecognizeRequest(payloads=[payload(bundle)] * 8), timeout=RPC_TIMEOUT_S
        )
        waiting = asyncio.ensure_future(call.code())
        await eventually(lambda: running.sample("queue_chunks") == 8)
        call.cancel()
        await eventually(lambda: running.sample("queue_chunks") == 0)
        assert await waiting is grpc.StatusCode.CANCELLED
        assert running.sample("faces_total", rpc="Recognize") == 0
        assert running.sample("dropped_total", reason="stream_gone") == 8


def damaged(random: np.random.Generator, chunk: bytes) -> bytes:
    """The chunk with flipped bits, a lost or foreign end, or nothing of it left."""
    data = bytearray(chunk)
    match int(random.integers(6)):
        case 0:
            for position in random.integers(0, 8 * len(data), random.integers(1, 9)):
                data[position // 8] ^= 1 << (position % 8)
        case 1:
            del data[random.integers(0, len(data)) :]
        case 2:
            data += random.bytes(int(random.integers(1, 200)))
        case 3:
            start = random.integers(0, len(data))
            data[start : start + 8] = random.bytes(int(random.integers(0, 16)))
        case 4:
            data = bytearray(random.bytes(int(random.integers(0, 400))))
        case _:
            data[6:] = random.bytes(int(random.integers(0, 17_000)))
    return bytes(data)


async def test_thousands_of_damaged_payloads_give_named_errors_and_leave_no_memory(
    bundles: Path, bundle: Bundle
) -> None:
    chunk = payload(bundle, faces=4)
    random = np.random.default_rng(2)

    async def send_damaged() -> None:
        sent = [damaged(random, chunk) for _ in range(250)]
        results = await recognize(running, [*sent, chunk])
        for data, result in zip(sent, results, strict=False):
            if data == chunk:
                continue
            assert result.status is ItemStatus.REJECTED
            assert result.error is not None
            assert result.error.code in CODES
            assert result.recognitions == ()
        assert len(results[-1].recognitions) == 4

    async def growth() -> int:
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(6):
            await send_damaged()
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
        return after - before

    async with running_recognizer(bundles) as running:
        for _ in range(4):
            await send_damaged()
        tracemalloc.start()
        try:
            await send_damaged()
            growths = [await growth() for _ in range(4)]
        finally:
            tracemalloc.stop()
    # What leaks grows each time; tables that are enlarged and calls under way come and go.
    assert min(growths) < 32_000, growths  # 21 bytes for each of 1,500 payloads
