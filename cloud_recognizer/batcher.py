"""Jobs of many senders, computed a batch at a time on threads.

offer → FairQueue (bounded) → a worker takes a batch when there are faces enough or a job has
waited long enough → compute, on a thread → the job's future.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Self, TypeVar

from cloud_recognizer.fair_queue import FairQueue, Flow
from cloud_recognizer.metrics import QUEUE_FULL, STREAM_GONE, TOO_LATE, Metrics
from mien.errors import DeadlineExceededError, OverloadedError

_log = logging.getLogger(__name__)

Job = TypeVar("Job")
Answer = TypeVar("Answer")


@dataclass(slots=True, eq=False)
class _Ticket(Generic[Job, Answer]):
    """A job that waits. Times are the event loop's."""

    job: Job
    flow: Flow
    faces: int
    size_bytes: int
    queued_s: float
    due_s: float  # when a batch with it should not wait for others any more
    deadline_s: float
    future: asyncio.Future[Answer]


class Batcher(Generic[Job, Answer]):
    """An async context manager that runs `workers` batches at a time.

    compute: called on a thread with the jobs of a batch, answers each in order. Where it raises,
    the jobs are computed one by one, so that one bad job fails alone.
    max_chunks, max_bytes: jobs that may wait, and bytes of them. max_batch_faces: faces of a
    batch; a job with more is one of its own. max_wait_s: how long a job waits for others.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[Job]], Sequence[Answer]],
        metrics: Metrics,
        *,
        max_chunks: int,
        max_bytes: int,
        max_batch_faces: int,
        max_wait_s: float,
        workers: int = 1,
    ) -> None:
        self._compute = compute
        self._metrics = metrics
        self._max_batch_faces = max_batch_faces
        self._max_wait_s = max_wait_s
        self._workers = workers
        self._queue: FairQueue[_Ticket[Job, Answer]] = FairQueue(
            max_chunks=max_chunks, max_bytes=max_bytes
        )
        self._tickets: dict[asyncio.Future[Answer], _Ticket[Job, Answer]] = {}
        self._due_s = math.inf  # the earliest of those that wait
        self._some = asyncio.Event()
        self._hurry = asyncio.Event()  # the batch is full, or due sooner than it was

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
        for future in list(self._tickets):
            future.cancel()

    def __len__(self) -> int:
        return self._queue.chunks

    def offer(
        self, job: Job, flow: Flow, *, faces: int, size_bytes: int, max_age_s: float = math.inf
    ) -> asyncio.Future[Answer]:
        """Queue a job; when full, the new one is refused, for its sender still has it.

        A job that is still waiting after `max_age_s` fails with DeadlineExceededError and is not
        computed. Cancelling the future withdraws it. Raises OverloadedError.
        """
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        # A job with little time left does not spend it on waiting for others.
        due_s = now_s + min(self._max_wait_s, max_age_s / 2)
        future: asyncio.Future[Answer] = loop.create_future()
        ticket = _Ticket(job, flow, faces, size_bytes, now_s, due_s, now_s + max_age_s, future)
        try:
            self._queue.offer(ticket)
        except OverloadedError:
            self._metrics.dropped.labels(QUEUE_FULL).inc()
            raise
        self._tickets[future] = ticket
        future.add_done_callback(self.withdraw)
        if due_s < self._due_s:
            self._due_s = due_s
            self._hurry.set()
        self._note_length()
        return future

    def withdraw(self, future: asyncio.Future[Answer]) -> None:
        """Take a job out at once, if it still waits, and cancel its future."""
        future.cancel()
        ticket = self._tickets.pop(future, None)
        if ticket is not None:
            self._queue.withdraw(ticket)
            self._metrics.dropped.labels(STREAM_GONE).inc()
            self._note_length()

    def _note_length(self) -> None:
        queue = self._queue
        self._metrics.queue_chunks.set(queue.chunks)
        self._metrics.queue_faces.set(queue.faces)
        self._metrics.queue_bytes.set(queue.size_bytes)
        if queue.chunks:
            self._some.set()
        else:
            self._some.clear()
            self._due_s = math.inf
        if queue.faces >= self._max_batch_faces:
            self._hurry.set()

    async def _run(self) -> None:
        while True:
            await self._some.wait()
            await self._until_ready()
            batch = self._take()
            try:
                if batch:
                    self._metrics.batch_chunks.observe(len(batch))
                    await self._answer(batch)
            finally:  # only a worker cancelled in the middle leaves any to cancel
                for ticket in batch:
                    ticket.future.cancel()

    async def _until_ready(self) -> None:
        while self._queue.faces < self._max_batch_faces:
            self._hurry.clear()
            try:
                async with asyncio.timeout_at(self._due_s):
                    await self._hurry.wait()
            except TimeoutError:
                return

    def _take(self) -> list[_Ticket[Job, Answer]]:
        now_s = asyncio.get_running_loop().time()
        batch, late = self._queue.take(
            self._max_batch_faces, lambda ticket: now_s >= ticket.deadline_s
        )
        for ticket in late:
            del self._tickets[ticket.future]
            self._refuse_late(ticket, now_s)
        for ticket in batch:
            del self._tickets[ticket.future]
            self._metrics.queue_seconds.observe(now_s - ticket.queued_s)
        self._due_s = min((ticket.due_s for ticket in self._queue.heads()), default=math.inf)
        self._note_length()
        return batch

    def _refuse_late(self, ticket: _Ticket[Job, Answer], now_s: float) -> None:
        self._metrics.dropped.labels(TOO_LATE).inc()
        self._metrics.late_seconds.observe(now_s - ticket.deadline_s)
        if not ticket.future.done():
            allowed_s = ticket.deadline_s - ticket.queued_s
            ticket.future.set_exception(
                DeadlineExceededError(
                    f"the chunk waited {now_s - ticket.queued_s:.3f} s, it was worth recognising "
                    f"for {allowed_s:.3f} s: send less, or allow more time"
                )
            )

    async def _answer(self, batch: list[_Ticket[Job, Answer]]) -> None:
        loop = asyncio.get_running_loop()
        jobs = [ticket.job for ticket in batch]
        try:
            answers = await loop.run_in_executor(self._executor, self._compute, jobs)
        except Exception as error:
            _log.exception("a batch of %d failed", len(batch))
            if len(batch) > 1:
                for single in batch:
                    await self._answer([single])
            elif not batch[0].future.done():
                batch[0].future.set_exception(error)
            return
        for ticket, answer in zip(batch, answers, strict=True):
            if not ticket.future.done():
                ticket.future.set_result(answer)
