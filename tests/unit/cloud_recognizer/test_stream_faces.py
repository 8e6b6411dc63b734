"""The stream contract, as a device sees it."""

import asyncio
import contextlib
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import onnxruntime as ort
import pytest

from cloud_recognizer.answers import MAX_JOINED, joined
from mien.bundle import Bundle
from mien.messages.downward import Acknowledgement, Credits, Settled
from mien.messages.results import ChunkResult, ItemStatus
from mien.messages.upward import Hello
from mien.v1 import recognition_pb2 as pb
from tests.support.recognizer import (
    Answers,
    Device,
    eventually,
    hello,
    payload,
    retry_delay_s,
    running_recognizer,
)
from tests.support.tiny_bundle import make_foreign_bundle


async def test_chunks_are_answered_in_order_with_what_the_classifier_says(
    bundles: Path, bundle: Bundle
) -> None:
    async with running_recognizer(bundles) as running:
        device = Device(running.stub)
        await device.open(hello(bundle))
        chunks = [payload(bundle, faces=3, seed=seed) for seed in range(5)]
        for seq, chunk in enumerate(chunks, 1):
            await device.send(seq, chunk)
        answers = await device.close()

    assert [result.seq for result in answers.results] == [1, 2, 3, 4, 5]
    classifier = ort.InferenceSession(bundle.path("classifier.onnx"))
    for result, chunk in zip(answers.results, chunks, strict=True):
        faces = bundle.codec().decode(chunk)
        symbols = np.stack([face.symbols for face in faces])
        level = np.array([face.level for face in faces], np.int32)
        expected = np.asarray(classifier.run(None, {"symbols": symbols, "level": level})[0])
        assert result.status is ItemStatus.RESULT
        assert result.bundle_id == bundle.bundle_id
        for index, (face, row) in enumerate(zip(faces, expected, strict=True)):
            recognition = result.recognitions[index]
            assert (recognition.index, recognition.time_ms) == (index, face.time_ms)
            assert (recognition.track_id, recognition.box) == (face.track_id, face.box)
            np.testing.assert_allclose(recognition.probabilities, row, atol=1e-5)
            assert recognition.probability == max(recognition.probabilities)
            best = recognition.probabilities.index(recognition.probability)
            assert recognition.expression == bundle.manifest.expressions[best]


async def test_acknowledgement_is_cumulative_and_every_credit_comes_back(
    bundles: Path, bundle: Bundle
) -> None:
    async with running_recognizer(bundles, credits=4) as running:
        device = Device(running.stub)
        welcome = await device.open(hello(bundle))
        assert (welcome.credits, welcome.acknowledged_seq) == (4, 0)
        assert (welcome.max_chunk_bytes, welcome.max_chunk_faces) == (16384, 64)
        chunk = payload(bundle)
        for start in range(1, 21, 4):  # five times all the credits there are
            for seq in range(start, start + 4):
                await device.send(seq, chunk)
            answers = await device.acknowledged(start + 3)
            assert answers.acknowledged == sorted(answers.acknowledged)
            assert answers.credits == 4
        assert (await device.close()).messages == []


async def test_a_damaged_chunk_is_rejected_and_the_stream_goes_on(
    bundles: Path, bundle: Bundle
) -> None:
    chunk = payload(bundle)
    damaged = chunk[:-1] + bytes([chunk[-1] ^ 1])
    async with running_recognizer(bundles) as running:
        device = Device(running.stub)
        await device.open(hello(bundle))
        for seq, sent in enumerate([chunk, damaged, b"", chunk[:20], b"\0" * 30_000, chunk], 1):
            await device.send(seq, sent)
        answers = await device.close()

    codes = [result.error.code if result.error else None for result in answers.results]
    rejected = ["checksum_mismatch", "truncated", "checksum_mismatch", "limit_exceeded"]
    assert codes == [None, *rejected, None]
    assert [result.status is ItemStatus.REJECTED for result in answers.results] == [
        code is not None for code in codes
    ]
    assert answers.acknowledged[-1] == 6
    assert answers.credits == 6


async def test_a_stream_takes_chunks_of_every_served_bundle_and_of_no_other(
    bundles: Path, bundle: Bundle, older: Bundle, tmp_path: Path
) -> None:
    foreign = make_foreign_bundle(tmp_path / "foreign", bundle, older)
    async with running_recognizer(bundles) as running:
        device = Device(running.stub)
        await device.open(hello(bundle))
        watching = running.stub.WatchRecognitions(pb.WatchRecognitionsRequest())
        await watching.initial_metadata()
        for seq, coded in enumerate((bundle, older, bundle, foreign), 1):
            await device.send(seq, payload(coded))
        results = (await device.close()).results
        watched = [await watching.read() for _ in range(3)]
        watching.cancel()
    expected = [bundle.bundle_id, older.bundle_id, bundle.bundle_id, ""]
    assert [result.bundle_id for result in results] == expected
    assert results[3].error is not None
    assert results[3].error.code == "wrong_bundle"
    assert [x.bundle_id for x in watched if isinstance(x, pb.WatchRecognitionsResponse)] == (
        expected[:3]
    )


async def test_duplicates_within_a_stream_are_acknowledged_and_not_recognised_again(
    bundles: Path, bundle: Bundle
) -> None:
    async with running_recognizer(bundles) as running:
        device = Device(running.stub)
        await device.open(hello(bundle))
        chunk = payload(bundle, faces=2)
        for seq in (1, 1, 2, 2, 1):
            await device.send(seq, chunk)
        answers = await device.close()
        assert running.sample("faces_total", rpc="StreamFaces") == 4
        assert running.sample("dropped_total", reason="duplicate") == 3
    assert [result.seq for result in answers.results] == [1, 2]
    assert answers.acknowledged[-1] == 2
    assert answers.credits == 5


async def test_a_resumed_epoch_goes_on_where_it_was_acknowledged(
    bundles: Path, bundle: Bundle
) -> None:
    async with running_recognizer(bundles) as running:
        first = Device(running.stub)
        await first.open(hello(bundle))
        for seq in (1, 2, 3):
            await first.send(seq, payload(bundle))
        await first.acknowledged(3)
        first.call.cancel()

        second = Device(running.stub)
        assert (await second.open(hello(bundle))).acknowledged_seq == 3
        for seq in (2, 3, 4):  # resent in doubt, and a new one
            await second.send(seq, payload(bundle))
        answers = await second.close()
        assert [result.seq for result in answers.results] == [4]
        assert (answers.acknowledged[-1], answers.credits) == (4, 3)

        other_epoch = Device(running.stub)
        assert (await other_epoch.open(hello(bundle, epoch=2))).acknowledged_seq == 0


async def test_skipped_sequence_numbers_are_acknowledged_with_what_follows(
    bundles: Path, bundle: Bundle
) -> None:
    async with running_recognizer(bundles) as running:
        device = Device(running.stub)
        await device.open(hello(bundle))
        await device.send(3, payload(bundle))
        await device.send(9, payload(bundle))
        answers = await device.close()
    assert [result.seq for result in answers.results] == [3, 9]
    assert answers.acknowledged[-1] == 9


@pytest.mark.parametrize(
    ("requests", "expected"),
    [
        ([pb.StreamFacesRequest(chunk=pb.EncodedChunk(seq=1))], "first request"),
        ([pb.StreamFacesRequest()], "hello or chunk"),
        ([pb.StreamFacesRequest(hello=pb.Hello(device_id="a b"))], "hello.device_id"),
        ([pb.StreamFacesRequest(hello=pb.Hello(device_id="a", bundle_ids=["x"]))], "bundle_ids"),
        ([pb.StreamFacesRequest(hello=pb.Hello(device_id="a", purpose="p" * 501))], "purpose"),
    ],
)
async def test_a_stream_that_does_not_begin_with_a_valid_hello_is_refused(
    bundles: Path, requests: list[pb.StreamFacesRequest], expected: str
) -> None:
    async with running_recognizer(bundles) as running:
        device = Device(running.stub)
        for request in requests:
            await device.call.write(request)
        code, details = await device.status()
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert expected in details


async def test_a_stream_without_any_request_is_refused(bundles: Path) -> None:
    async with running_recognizer(bundles, hello_timeout_s=0.05) as running:
        silent = Device(running.stub)
        code, details = await silent.status()
        assert (code, "no hello" in details) == (grpc.StatusCode.INVALID_ARGUMENT, True)
        closed = Device(running.stub)
        await closed.call.done_writing()
        assert (await closed.status())[0] is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        (pb.StreamFacesRequest(chunk=pb.EncodedChunk(seq=0)), "counts from 1"),
        (pb.StreamFacesRequest(chunk=pb.EncodedChunk(seq=4)), "must increase"),
        (pb.StreamFacesRequest(hello=pb.Hello(device_id="door", epoch=1)), "may come once"),
        (pb.StreamFacesRequest(), "hello or chunk"),
    ],
)
async def test_a_broken_protocol_ends_the_stream(
    bundles: Path, bundle: Bundle, broken: pb.StreamFacesRequest, expected: str
) -> None:
    # The batch waits so long that chunk 5 is neither settled nor acknowledged.
    async with running_recognizer(bundles, max_batch_wait_s=1.0) as running:
        device = Device(running.stub)
        await device.open(hello(bundle))
        await device.send(5, payload(bundle))
        await device.call.write(broken)
        code, details = await device.status()
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert expected in details


async def test_a_chunk_beyond_the_credits_ends_the_stream(bundles: Path, bundle: Bundle) -> None:
    async with running_recognizer(bundles, credits=2, max_batch_wait_s=1.0) as running:
        device = Device(running.stub)
        await device.open(hello(bundle))
        for seq in (1, 2, 3):
            await device.send(seq, payload(bundle))
        code, details = await device.status()
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "without a credit" in details
        assert running.sample("rpc_errors_total", code="overloaded") == 1
        assert running.sample("dropped_total", reason="no_credit") == 1


async def test_the_device_and_the_server_settle_on_a_bundle_both_have(
    bundles: Path, bundle: Bundle, older: Bundle
) -> None:
    async def welcomed(*bundle_ids: str) -> str:
        device = Device(running.stub)
        return (await device.open(Hello("door", 1, 0, bundle_ids))).bundle_id

    async with running_recognizer(bundles) as running:
        assert await welcomed(older.bundle_id, bundle.bundle_id) == bundle.bundle_id
        assert await welcomed("f" * 64, older.bundle_id) == older.bundle_id


@pytest.mark.parametrize("bundle_ids", [(), ("f" * 64,)])
async def test_a_device_without_a_served_bundle_is_told_which_to_get(
    bundles: Path, bundle: Bundle, bundle_ids: tuple[str, ...]
) -> None:
    async with running_recognizer(bundles) as running:
        device = Device(running.stub)
        await device.call.write(
            pb.StreamFacesRequest(hello=Hello("door", 1, 0, bundle_ids).to_proto())
        )
        code, details = await device.status()
    assert code is grpc.StatusCode.NOT_FOUND
    assert bundle.bundle_id in details


async def test_of_two_streams_of_one_epoch_the_newest_wins(bundles: Path, bundle: Bundle) -> None:
    # It takes over the place too: there is no other.
    async with running_recognizer(
        bundles, max_batch_wait_s=0.5, max_streams=1, max_sessions=1
    ) as running:
        first, second = Device(running.stub), Device(running.stub)
        await first.open(hello(bundle))
        await first.send(1, payload(bundle))
        await eventually(lambda: running.sample("queue_chunks") == 1)
        assert (await second.open(hello(bundle))).acknowledged_seq == 0
        await second.send(1, payload(bundle))
        assert (await first.status())[0] is grpc.StatusCode.ABORTED
        assert [result.seq for result in (await second.close()).results] == [1]
        # Withdrawn with the first stream, recognised once.
        assert running.sample("faces_total", rpc="StreamFaces") == 3
        assert running.sample("streams") == 0


async def test_devices_beyond_max_streams_are_asked_to_come_later(
    bundles: Path, bundle: Bundle
) -> None:
    async with running_recognizer(bundles, max_streams=1, max_sessions=1) as running:
        first, second = Device(running.stub), Device(running.stub)
        await first.open(hello(bundle, "first"))
        await second.call.write(pb.StreamFacesRequest(hello=hello(bundle, "second").to_proto()))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await second.read()
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert retry_delay_s(caught.value) > 0
        await first.close()
        await eventually(lambda: running.sample("streams") == 0)
        third = Device(running.stub)
        await third.open(hello(bundle, "second"))


async def test_a_cancelled_stream_leaves_no_task_and_no_queue_entry(
    bundles: Path, bundle: Bundle
) -> None:
    async with running_recognizer(bundles, max_batch_wait_s=1.0) as running:
        warm = Device(running.stub)
        await warm.open(hello(bundle, "warm"))
        await warm.close()
        await eventually(lambda: running.sample("streams") == 0)
        tasks = len(asyncio.all_tasks())
        for number in range(20):
            device = Device(running.stub)
            await device.open(hello(bundle, f"device{number}"))
            for seq in range(1, 6):
                await device.send(seq, payload(bundle))
            await eventually(lambda: running.sample("queue_chunks") > 0)
            device.call.cancel()
            await eventually(lambda: running.sample("streams") == 0)
            assert running.sample("queue_chunks") == running.sample("credits") == 0
        del device
        await eventually(lambda: len(asyncio.all_tasks()) <= tasks)
        assert running.sample("dropped_total", reason="stream_gone") > 0


async def test_a_device_that_reads_nothing_is_cut_off(bundles: Path, bundle: Bundle) -> None:
    chunk = payload(bundle, faces=64)  # whose results are some 5 kB
    async with running_recognizer(bundles, credits=1024, write_timeout_s=0.2) as running:
        device = Device(running.stub)
        await device.open(hello(bundle))
        with contextlib.suppress(grpc.aio.AioRpcError):  # it may be cut off while it still sends
            for seq in range(1, 201):
                await device.send(seq, chunk)
        await eventually(lambda: running.sample("streams") == 0)
        assert running.sample("rpc_errors_total", code="unavailable") == 1
        await eventually(lambda: running.sample("queue_chunks") == 0)


async def test_streams_share_batches(bundles: Path, bundle: Bundle) -> None:
    async with running_recognizer(bundles, max_batch_wait_s=1.0, max_batch_faces=24) as running:
        devices = [Device(running.stub) for _ in range(4)]
        for number, device in enumerate(devices):
            await device.open(hello(bundle, f"device{number}"))
            for seq in (1, 2, 3):
                await device.send(seq, payload(bundle, faces=2))
        results: list[ChunkResult] = []
        for device in devices:
            results += (await device.close()).results
        assert len(results) == 12
        assert running.sample("batch_faces_count") == 1
        assert running.sample("batch_faces_sum") == 24


async def test_a_device_that_takes_them_joined_gets_the_same_answers_in_fewer_messages(
    bundles: Path, bundle: Bundle
) -> None:
    seen = []
    for takes_settled in (False, True):
        async with running_recognizer(bundles, max_batch_wait_s=0.2) as running:
            device = Device(running.stub)
            await device.open(replace(hello(bundle), takes_settled=takes_settled))
            for seq in range(1, 5):
                await device.send(seq, payload(bundle, seed=seq))
            seen.append((await device.close()).messages)

    plain, settled = seen
    assert all(isinstance(message, Settled) for message in settled)
    parts = Answers([part for message in settled for part in message.parts])
    assert len(settled) < len(parts.messages)
    assert parts.results == Answers(plain).results
    assert parts.acknowledged[-1] == Answers(plain).acknowledged[-1] == 4
    assert parts.credits == Answers(plain).credits == 4


def test_however_many_results_there_are_a_message_stays_small() -> None:
    results = [ChunkResult(seq, ItemStatus.RESULT) for seq in range(1, 2 * MAX_JOINED + 2)]
    messages = joined([*results, Acknowledgement(len(results)), Credits(3)])
    assert [len(message.results) for message in messages] == [MAX_JOINED, MAX_JOINED, 1]
    assert [part for message in messages for part in message.parts] == [
        *results,
        Acknowledgement(len(results)),
        Credits(3),
    ]
