"""Jobs of many streams, computed a batch at a time on threads.

offer → queue (bounded) → a worker takes a batch when it is full or its first job has waited
long enough → compute, on a thread → the job's future.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Generic, Self, TypeVar

from cloud_recognizer.metrics import QUEUE_FULL, STREAM_GONE, Metrics
from mien.errors import OverloadedError

_log = logging.getLogger(__name__)

Job = TypeVar("Job")
Answer = TypeVar("Answer")


class Batcher(Generic[Job, Answer]):
    """An async context manager that runs `workers` batches at a time.

    compute: called on a thread with 1 to `max_batch` jobs, answers each in order. Where it
    raises, the jobs are computed one by one, so that one bad job fails alone.
    capacity: jobs that may wait. max_wait_s: how long the first job of a batch waits for others.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[Job]], Sequence[Answer]],
        metrics: Metrics,
        *,
        capacity: int,
        max_batch: int,
        max_wait_s: float,
        workers: int = 1,
    ) -> None:
        self._compute = compute
        self._metrics = metrics
        self._capacity = capacity
        self._max_batch = max_batch
        self._max_wait_s = max_wait_s
        self._workers = workers
        # Ordered by arrival; keyed by future so that a cancelled one leaves at once.
        self._queue: OrderedDict[asyncio.Future[Answer], tuple[Job, float]] = OrderedDict()
        self._some = asyncio.Event()
        self._full = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._executor = ThreadPoolExecutor(self._workers, thread_name_prefix="batch")
        self._tasks = [asyncio.create_task(self._run()) for _ in range(self._workers)]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._executor.shutdown()
        for future in list(self._queue):
            future.cancel()

    def __len__(self) -> int:
        return len(self._queue)

    def offer(self, job: Job) -> asyncio.Future[Answer]:
        """Queue a job; when full, the new one is refused, for its sender still has it.

        Cancelling the future withdraws the job. Raises OverloadedError.
        """
        if len(self._queue) >= self._capacity:
            self._metrics.dropped.labels(QUEUE_FULL).inc()
            raise OverloadedError(
                f"{self._capacity} chunks are waiting already; send again in a moment"
            )
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._queue[future] = (job, loop.time())
        future.add_done_callback(self._withdraw)
        self._note_length()
        return future

    def _withdraw(self, future: asyncio.Future[Answer]) -> None:
        if self._queue.pop(future, None) is not None:
            self._metrics.dropped.labels(STREAM_GONE).inc()
            self._note_length()

    def _note_length(self) -> None:
        length = len(self._queue)
        self._metrics.queue_chunks.set(length)
        (self._some.set if length else self._some.clear)()
        (self._full.set if length >= self._max_batch else self._full.clear)()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._some.wait()
            _, first_s = next(iter(self._queue.values()))
            try:
                async with asyncio.timeout_at(first_s + self._max_wait_s):
                    await self._full.wait()
            except TimeoutError:
                pass
            batch = self._take(loop.time())
            try:
                if batch:
                    await self._answer(batch)
            finally:  # only a worker cancelled in the middle leaves any to cancel
                for future, _ in batch:
                    future.cancel()

    def _take(self, now_s: float) -> list[tuple[asyncio.Future[Answer], Job]]:
        batch: list[tuple[asyncio.Future[Answer], Job]] = []
        while self._queue and len(batch) < self._max_batch:
            future, (job, queued_s) = self._queue.popitem(last=False)
            self._metrics.queue_seconds.observe(now_s - queued_s)
            batch.append((future, job))
        self._note_length()
        return batch

    async def _answer(self, batch: list[tuple[asyncio.Future[Answer], Job]]) -> None:
        loop = asyncio.get_running_loop()
        jobs = [job for _, job in batch]
        try:
            answers = await loop.run_in_executor(self._executor, self._compute, jobs)
        except Exception as error:
            _log.exception("a batch of %d failed", len(batch))
            if len(batch) > 1:
                for single in batch:
                    await self._answer([single])
            elif not batch[0][0].done():
                batch[0][0].set_exception(error)
            return
        for (future, _), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)
