"""What is answered of chunks: as the wire says it, in few messages, and counted."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from cloud_recognizer.metrics import Metrics
from cloud_recognizer.recognizer import Outcome
from cloud_recognizer.status import INTERNAL_CODE, INTERNAL_MESSAGE
from mien.errors import DeadlineExceededError
from mien.messages.downward import Acknowledgement, Credits, Downward, Settled
from mien.messages.results import ChunkResult, ItemError, ItemStatus

# Results of one message: with the most faces a chunk may have, a tenth of what gRPC takes at once.
MAX_JOINED: Final = 32


def result_of(seq: int, outcome: "asyncio.Future[Outcome]") -> ChunkResult:
    """What the wire says of a chunk whose outcome is there; a failure of ours is "internal"."""
    failure = outcome.exception()
    if failure is not None:
        error = ItemError(INTERNAL_CODE, INTERNAL_MESSAGE)
        if isinstance(failure, DeadlineExceededError):
            error = ItemError(failure.code, str(failure))
        return ChunkResult(seq, ItemStatus.REJECTED, error=error)
    done = outcome.result()
    if done.error is not None:
        return ChunkResult(seq, ItemStatus.REJECTED, done.bundle_id, error=done.error)
    return ChunkResult(seq, ItemStatus.RESULT, done.bundle_id, done.recognitions)


def count(metrics: Metrics, result: ChunkResult, rpc: str, payload_bytes: int) -> None:
    """Count a settled chunk of so many bytes, and its faces."""
    metrics.chunks.labels(result.status.name.lower()).inc()
    if result.error is not None:
        metrics.rejected.labels(result.error.code).inc()
    if result.recognitions:
        metrics.faces.labels(rpc).inc(len(result.recognitions))
        metrics.bundle_faces.labels(result.bundle_id).inc(len(result.recognitions))
        metrics.bundle_payload_bytes.labels(result.bundle_id).inc(payload_bytes)
    for recognition in result.recognitions:
        metrics.recognitions.labels(recognition.expression).inc()


def joined(answers: Sequence[Downward]) -> list[Settled]:
    """Results, at most MAX_JOINED a message, the last with acknowledgement and credits."""
    results = [answer for answer in answers if isinstance(answer, ChunkResult)]
    if not answers:
        return []
    acknowledged_seq = max((a.seq for a in answers if isinstance(a, Acknowledgement)), default=0)
    credits = sum(a.chunks for a in answers if isinstance(a, Credits))  # noqa: A001
    starts = range(0, max(len(results), 1), MAX_JOINED)
    messages = [Settled(tuple(results[start : start + MAX_JOINED])) for start in starts]
    return [
        *messages[:-1],
        replace(messages[-1], acknowledged_seq=acknowledged_seq, credits=credits),
    ]
