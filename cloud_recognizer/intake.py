"""Where chunks of streams and calls come in: measured, queued with their sender's, withdrawn."""

import asyncio

from cloud_recognizer.batcher import Batcher
from cloud_recognizer.fair_queue import Flow
from cloud_recognizer.recognizer import Job, Outcome, Recognizer
from mien.bitstream import Limits
from mien.codec import declared_faces


class Intake:
    """What DeviceStream and Recognize put chunks into."""

    def __init__(
        self, recognizer: Recognizer, batcher: Batcher[Job, Outcome], limits: Limits
    ) -> None:
        self._recognizer = recognizer
        self._batcher = batcher
        self._limits = limits

    def flow(self, kind: str, *name: object, max_chunks: int, rank: int = 0) -> Flow:
        """A sender of which so many chunks, each as long as allowed, may wait. rank: see Flow."""
        return Flow((kind, *name), max_chunks, max_chunks * self._limits.max_chunk_bytes, rank)

    def places(self, payloads: list[bytes]) -> int:
        """The chunks of the longest length that take as much memory as these payloads."""
        size_bytes = sum(map(len, payloads))
        return max(len(payloads), -(-size_bytes // self._limits.max_chunk_bytes))

    def submit(self, job: Job, flow: Flow, max_age_s: float) -> "asyncio.Future[Outcome]":
        """Queue a chunk; its future fails with DeadlineExceededError when it waits for too long.

        A payload that is too long for a queue is rejected at once. Raises OverloadedError.
        """
        refused = self._recognizer.refuse_oversize(job)
        if refused is None:
            return self._batcher.offer(
                job,
                flow,
                faces=declared_faces(job.payload, self._limits),
                size_bytes=len(job.payload),
                max_age_s=max_age_s,
            )
        settled: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        settled.set_result(refused)
        return settled

    def withdraw(self, outcome: "asyncio.Future[Outcome]") -> None:
        """Take a chunk out again, if it still waits."""
        self._batcher.withdraw(outcome)
