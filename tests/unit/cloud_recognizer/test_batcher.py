"""The batcher alone, with jobs that are plain numbers."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from cloud_recognizer.batcher import Batcher
from cloud_recognizer.metrics import Metrics
from mien.errors import OverloadedError


def doubles(batches: list[list[int]], metrics: Metrics, **settings: float) -> Batcher[int, int]:
    """A batcher that doubles numbers and notes its batches."""

    def compute(jobs: Sequence[int]) -> list[int]:
        batches.append(list(jobs))
        if 13 in jobs:
            raise ZeroDivisionError
        return [2 * job for job in jobs]

    defaults: dict[str, float] = {"capacity": 100, "max_batch": 4, "max_wait_s": 0.01}
    return Batcher(compute, metrics, **(defaults | settings))  # type: ignore[arg-type]


def sample(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(f"mien_cloud_{name}", labels) or 0.0


async def test_jobs_are_taken_in_order_in_batches_of_the_largest_size() -> None:
    batches: list[list[int]] = []
    async with doubles(batches, Metrics()) as batcher:
        answers = await asyncio.gather(*[batcher.offer(job) for job in range(10)])
    assert list(answers) == [2 * job for job in range(10)]
    assert batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


async def test_a_full_batch_does_not_wait() -> None:
    batches: list[list[int]] = []
    async with doubles(batches, Metrics(), max_wait_s=3600) as batcher:
        first = [batcher.offer(job) for job in range(4)]
        assert await asyncio.gather(*first) == [0, 2, 4, 6]


async def test_a_lone_job_waits_no_longer_than_it_must() -> None:
    batches: list[list[int]] = []
    async with doubles(batches, Metrics(), max_batch=1000, max_wait_s=0.001) as batcher:
        assert await batcher.offer(21) == 42
    assert batches == [[21]]


async def test_when_full_the_new_job_is_refused_and_counted() -> None:
    metrics = Metrics()
    async with doubles([], metrics, capacity=3, max_wait_s=3600) as batcher:
        for job in range(3):
            batcher.offer(job)
        with pytest.raises(OverloadedError, match="3 chunks are waiting"):
            batcher.offer(3)
        assert len(batcher) == 3
        assert sample(metrics, "dropped_total", reason="queue_full") == 1


async def test_a_withdrawn_job_leaves_the_queue_at_once() -> None:
    metrics, batches = Metrics(), list[list[int]]()
    async with doubles(batches, metrics, max_batch=2, max_wait_s=3600) as batcher:
        withdrawn = batcher.offer(1)
        withdrawn.cancel()
        await asyncio.gather(withdrawn, return_exceptions=True)
        assert len(batcher) == 0
        assert sample(metrics, "queue_chunks") == 0
        assert sample(metrics, "dropped_total", reason="stream_gone") == 1
        offered = [batcher.offer(job) for job in (2, 3)]
        assert [await future for future in offered] == [4, 6]
    assert batches == [[2, 3]]


async def test_a_job_that_fails_fails_alone() -> None:
    batches: list[list[int]] = []
    async with doubles(batches, Metrics()) as batcher:
        answers = await asyncio.gather(
            *[batcher.offer(job) for job in (12, 13, 14, 15)], return_exceptions=True
        )
    assert [answers[0], answers[2], answers[3]] == [24, 28, 30]
    assert isinstance(answers[1], ZeroDivisionError)
    assert batches == [[12, 13, 14, 15], [12], [13], [14], [15]]


async def test_workers_compute_at_the_same_time() -> None:
    together = threading.Barrier(2, timeout=30)

    def compute(jobs: Sequence[int]) -> Sequence[int]:
        together.wait()  # passes only while another batch is computed too
        return jobs

    batcher = Batcher(compute, Metrics(), capacity=10, max_batch=1, max_wait_s=0.0, workers=2)
    async with batcher:
        offered = [batcher.offer(job) for job in (1, 2)]
        assert [await future for future in offered] == [1, 2]


async def test_leaving_cancels_what_still_waits() -> None:
    async with doubles([], Metrics(), max_wait_s=3600) as batcher:
        waiting = batcher.offer(1)
    assert waiting.cancelled()
