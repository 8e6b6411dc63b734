"""The batcher alone, with jobs that are plain numbers."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from cloud_recognizer.batcher import Batcher
from cloud_recognizer.fair_queue import Flow
from cloud_recognizer.metrics import Metrics
from mien.errors import DeadlineExceededError, OverloadedError

ONE = Flow("one", 100, 1000)
OTHER = Flow("other", 100, 1000)


def doubles(batches: list[list[int]], metrics: Metrics, **settings: float) -> Batcher[int, int]:
    """A batcher that doubles numbers and notes its batches."""

    def compute(jobs: Sequence[int]) -> list[int]:
        batches.append(list(jobs))
        if 13 in jobs:
            raise ZeroDivisionError
        return [2 * job for job in jobs]

    defaults: dict[str, float] = {
        "max_chunks": 100,
        "max_bytes": 1000,
        "max_batch_faces": 4,
        "max_wait_s": 0.01,
    }
    return Batcher(compute, metrics, **(defaults | settings))  # type: ignore[arg-type]


def offer(
    batcher: Batcher[int, int], job: int, flow: Flow = ONE, faces: int = 1, **more: float
) -> "asyncio.Future[int]":
    return batcher.offer(job, flow, faces=faces, size_bytes=10, **more)


def sample(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(f"mien_cloud_{name}", labels) or 0.0


async def test_jobs_are_taken_in_order_in_batches_of_the_largest_size() -> None:
    batches: list[list[int]] = []
    async with doubles(batches, Metrics()) as batcher:
        answers = await asyncio.gather(*[offer(batcher, job) for job in range(10)])
    assert list(answers) == [2 * job for job in range(10)]
    assert batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


async def test_a_full_batch_does_not_wait() -> None:
    batches: list[list[int]] = []
    async with doubles(batches, Metrics(), max_wait_s=3600) as batcher:
        first = [offer(batcher, job) for job in range(4)]
        assert await asyncio.gather(*first) == [0, 2, 4, 6]


async def test_a_lone_job_waits_no_longer_than_it_must() -> None:
    batches: list[list[int]] = []
    async with doubles(batches, Metrics(), max_batch_faces=1000, max_wait_s=0.001) as batcher:
        assert await offer(batcher, 21) == 42
    assert batches == [[21]]


async def test_when_full_the_new_job_is_refused_and_counted() -> None:
    metrics = Metrics()
    async with doubles([], metrics, max_chunks=3, max_wait_s=3600) as batcher:
        for job in range(3):
            offer(batcher, job)
        with pytest.raises(OverloadedError, match="3 chunks of 30 bytes wait"):
            offer(batcher, 3)
        assert len(batcher) == 3
        assert sample(metrics, "dropped_total", reason="queue_full") == 1


async def test_a_withdrawn_job_leaves_the_queue_at_once() -> None:
    metrics, batches = Metrics(), list[list[int]]()
    async with doubles(batches, metrics, max_batch_faces=2, max_wait_s=3600) as batcher:
        withdrawn = offer(batcher, 1)
        withdrawn.cancel()
        await asyncio.gather(withdrawn, return_exceptions=True)
        assert len(batcher) == 0
        assert sample(metrics, "queue_chunks") == 0
        assert sample(metrics, "dropped_total", reason="stream_gone") == 1
        offered = [offer(batcher, job) for job in (2, 3)]
        assert [await future for future in offered] == [4, 6]
    assert batches == [[2, 3]]


async def test_a_job_that_fails_fails_alone() -> None:
    batches: list[list[int]] = []
    async with doubles(batches, Metrics()) as batcher:
        answers = await asyncio.gather(
            *[offer(batcher, job) for job in (12, 13, 14, 15)], return_exceptions=True
        )
    assert [answers[0], answers[2], answers[3]] == [24, 28, 30]
    assert isinstance(answers[1], ZeroDivisionError)
    assert batches == [[12, 13, 14, 15], [12], [13], [14], [15]]


async def test_workers_compute_at_the_same_time() -> None:
    together = threading.Barrier(2, timeout=30)

    def compute(jobs: Sequence[int]) -> Sequence[int]:
        together.wait()  # passes only while another batch is computed too
        return jobs

    batcher = Batcher(
        compute,
        Metrics(),
        max_chunks=10,
        max_bytes=100,
        max_batch_faces=1,
        max_wait_s=0.0,
        workers=2,
    )
    async with batcher:
        offered = [offer(batcher, job) for job in (1, 2)]
        assert [await future for future in offered] == [1, 2]


async def test_leaving_cancels_what_still_waits() -> None:
    async with doubles([], Metrics(), max_wait_s=3600) as batcher:
        waiting = offer(batcher, 1)
    assert waiting.cancelled()


async def test_a_batch_is_measured_in_faces() -> None:
    batches: list[list[int]] = []
    async with doubles(batches, Metrics(), max_batch_faces=8, max_wait_s=0.001) as batcher:
        faces = {1: 3, 2: 5, 3: 6, 4: 64, 5: 1}
        await asyncio.gather(*[offer(batcher, job, faces=count) for job, count in faces.items()])
    assert batches == [[1, 2], [3], [4], [5]]


async def test_a_job_with_little_time_does_not_spend_it_on_waiting_for_others() -> None:
    batches: list[list[int]] = []
    async with doubles(batches, Metrics(), max_wait_s=3600) as batcher:
        patient = offer(batcher, 1)
        await asyncio.sleep(0)  # the worker waits for the patient one by now
        hurried = offer(batcher, 2, max_age_s=0.5)
        outcome = await asyncio.gather(patient, hurried, return_exceptions=True)
    assert outcome[0] == 2  # taken along, a hundred years before its time
    assert batches[0][0] == 1


async def test_a_job_that_is_too_late_is_not_computed_and_counted() -> None:
    metrics, batches, begun, go_on = (
        Metrics(),
        list[list[int]](),
        asyncio.Event(),
        threading.Event(),
    )
    loop = asyncio.get_running_loop()

    def compute(jobs: Sequence[int]) -> Sequence[int]:
        batches.append(list(jobs))
        loop.call_soon_threadsafe(begun.set)
        assert go_on.wait(30)
        return jobs

    batcher = Batcher(
        compute, metrics, max_chunks=10, max_bytes=100, max_batch_faces=1, max_wait_s=0.0
    )
    async with batcher:
        first = offer(batcher, 1)
        await begun.wait()
        late, patient = offer(batcher, 2, max_age_s=0.01), offer(batcher, 3, OTHER, max_age_s=3600)
        await asyncio.sleep(0.02)
        go_on.set()
        assert [await first, await patient] == [1, 3]
        with pytest.raises(DeadlineExceededError, match=r"worth recognising for 0\.010 s"):
            await late
        assert len(batcher) == 0
    assert batches == [[1], [3]]
    assert sample(metrics, "dropped_total", reason="too_late") == 1
    assert sample(metrics, "late_seconds_count") == 1
    assert sample(metrics, "queue_faces") == sample(metrics, "queue_bytes") == 0


async def test_a_withdrawn_job_has_left_when_withdraw_returns() -> None:
    async with doubles([], Metrics(), max_chunks=1, max_wait_s=3600) as batcher:
        withdrawn = offer(batcher, 1)
        batcher.withdraw(withdrawn)
        assert len(batcher) == 0
        assert withdrawn.cancelled()
        offer(batcher, 2)  # there is room at once
