"""One device's stream: credits, the window of unsettled chunks, and what to answer.

receive(chunk) → intake → settle(): results in the order the chunks came, then one cumulative
acknowledgement and the credits that the ledger gives. Nothing here knows gRPC.

A chunk is settled once its result is published to the hub: from then on it is acknowledged, also
on the next stream of the same epoch, and never recognised again.
"""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Final, Self

from cloud_recognizer.accuracy.estimate import Accuracy
from cloud_recognizer.credits import CreditLedger
from cloud_recognizer.hub.contract import Hub, Origin
from cloud_recognizer.intake import Intake
from cloud_recognizer.metrics import DUPLICATE, NO_CREDIT, STREAM_FACES, Metrics
from cloud_recognizer.model import ExpressionModel
from cloud_recognizer.onlookers import Onlookers
from cloud_recognizer.recognizer import Job, Outcome
from cloud_recognizer.sessions import Sessions
from cloud_recognizer.status import INTERNAL_CODE, INTERNAL_MESSAGE
from mien.bitstream import Limits
from mien.errors import (
    DeadlineExceededError,
    OverloadedError,
    ProtocolError,
    SupersededError,
)
from mien.messages import (
    Acknowledgement,
    ChunkResult,
    Credits,
    Downward,
    EncodedChunk,
    Hello,
    ItemError,
    ItemStatus,
    Settled,
    Welcome,
)

# Results of one message: with the most faces a chunk may have, a tenth of what gRPC takes at once.
MAX_JOINED: Final = 32


@dataclass(slots=True)
class _Unsettled:
    seq: int
    payload_bytes: int
    received_s: float
    outcome: "asyncio.Future[Outcome]"
    result: ChunkResult | None = None  # from here on it is handed to the hub
    published: "asyncio.Future[None] | None" = None


class DeviceStream:
    """The state of one stream after its Hello; a context manager that holds session and account.

    most: chunks that may be unsettled at a time. max_age_s: how old one may become.
    """

    def __init__(
        self,
        hello: Hello,
        model: ExpressionModel,
        sessions: Sessions,
        intake: Intake,
        ledger: CreditLedger,
        hub: Hub,
        metrics: Metrics,
        accuracy: Accuracy,
        onlookers: Onlookers,
        *,
        most: int,
        max_age_s: float,
    ) -> None:
        self._hello = hello
        self._origin = Origin(
            hello.device_id,
            hello.epoch,
            hello.epoch_start_unix_ms,
            model.bundle_id,
            model.expressions,
        )
        self._sessions = sessions
        self._intake = intake
        self._ledger = ledger
        self._hub = hub
        self._metrics = metrics
        self._accuracy = accuracy
        self._onlookers = onlookers
        self._flow = intake.flow("stream", hello.device_id, hello.epoch, max_chunks=most)
        self._max_age_s = max_age_s
        if hello.max_latency_ms:
            self._max_age_s = min(max_age_s, hello.max_latency_ms / 1000)
        self._unsettled: deque[_Unsettled] = deque()
        self._duplicates = 0
        self._superseded = False
        self.wake = asyncio.Event()  # set whenever there may be something to send

    def __enter__(self) -> Self:
        self._session = self._sessions.enter(self._hello, self)
        try:
            self._account = self._ledger.open()
        except OverloadedError:
            self._sessions.leave(self._session, self)
            raise
        self._highest_seq = self._session.acknowledged_seq
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._sessions.leave(self._session, self)
        self._give_up()

    @property
    def idle(self) -> bool:
        """Whether every chunk that was received is settled and answered."""
        return not self._unsettled and not self._duplicates

    def welcome(self, limits: Limits, target_face_bytes: int) -> Welcome:
        """The answer to Hello."""
        return Welcome(
            bundle_id=self._origin.bundle_id,
            acknowledged_seq=self._session.acknowledged_seq,
            credits=self._account.balance,
            target_face_bytes=target_face_bytes,
            max_chunk_bytes=limits.max_chunk_bytes,
            max_chunk_faces=limits.max_faces,
        )

    def receive(self, chunk: EncodedChunk) -> None:
        """Take a chunk in.

        Raises OverloadedError beyond the credits and ProtocolError for a seq that is neither new
        nor a duplicate: both end the stream, as SupersededError does.
        """
        self._check_superseded()
        try:
            self._account.spend()
        except OverloadedError:
            self._metrics.dropped.labels(NO_CREDIT).inc()
            raise
        self._metrics.payload_bytes.inc(len(chunk.payload))
        if self._is_duplicate(chunk.seq):
            self._metrics.dropped.labels(DUPLICATE).inc()
            self._duplicates += 1
            self.wake.set()
            return
        self._onlookers.offer(self._hello.device_id, chunk.payload)
        received_s = time.monotonic()
        outcome = self._intake.submit(Job(chunk.payload), self._flow, self._max_age_s)
        self._unsettled.append(_Unsettled(chunk.seq, len(chunk.payload), received_s, outcome))
        self._highest_seq = chunk.seq
        outcome.add_done_callback(lambda done: self._answered(done, received_s))

    def _answered(self, outcome: "asyncio.Future[Outcome]", received_s: float) -> None:
        # Here and not when it is settled: a device that reads slowly is no pressure on the others.
        if not outcome.cancelled():
            self._ledger.note_chunk(received_s, time.monotonic())
        self.wake.set()

    def _is_duplicate(self, seq: int) -> bool:
        if seq > self._highest_seq:
            return False
        if seq <= self._session.acknowledged_seq or any(x.seq == seq for x in self._unsettled):
            return True
        raise ProtocolError(
            f"chunk.seq must increase within an epoch: {seq} came after {self._highest_seq}"
        )

    def settle(self) -> list[Downward]:
        """Settle what is recognised, in order; return what to send.

        Raises SupersededError when a newer stream has taken over.
        """
        self._check_superseded()
        answers: list[Downward] = []
        self._publish()
        while self._unsettled and (result := _published(self._unsettled[0])) is not None:
            self._note_settled(self._unsettled.popleft(), result)
            answers.append(result)
        returned = len(answers) + self._duplicates
        self._duplicates = 0
        if returned:
            answers.append(Acknowledgement(self._session.acknowledged_seq))
            if granted := self._account.settle(returned):
                answers.append(Credits(granted))
        return answers

    def as_written(self, answers: list[Downward]) -> list[Downward]:
        """What `settle` returned as the device takes it: joined, if it understands that.

        A message costs several times what a result in it does, in bytes and in time.
        """
        return [*joined(answers)] if self._hello.takes_settled else answers

    def _publish(self) -> None:
        """Hand to the hub, in order, what is recognised."""
        for chunk in self._unsettled:
            if not chunk.outcome.done():
                return
            if chunk.published is None:
                chunk.result = result_of(chunk.seq, chunk.outcome)
                self._follow_bundle(chunk)
                chunk.published = self._hub.publish(self._origin, chunk.result)
                if not chunk.published.done():
                    chunk.published.add_done_callback(lambda _: self.wake.set())

    def _follow_bundle(self, chunk: _Unsettled) -> None:
        """The device has changed its bundle, or sends what it coded before it did."""
        result = chunk.result
        if result and result.recognitions and result.bundle_id != self._origin.bundle_id:
            expressions = chunk.outcome.result().expressions
            self._origin = replace(
                self._origin, bundle_id=result.bundle_id, expressions=expressions
            )

    def _note_settled(self, chunk: _Unsettled, result: ChunkResult) -> None:
        self._metrics.chunk_seconds.observe(time.monotonic() - chunk.received_s)
        self._session.acknowledged_seq = chunk.seq
        count(self._metrics, result, STREAM_FACES, chunk.payload_bytes)
        self._accuracy.observe(self._hello, result)

    def supersede(self) -> None:
        """Settle nothing more, and end: a newer stream has the session."""
        self._superseded = True
        self._give_up()
        self.wake.set()

    def _check_superseded(self) -> None:
        if self._superseded:
            raise SupersededError(
                "a newer stream of the same device and epoch has taken over; "
                "do two devices share an id?"
            )

    def _give_up(self) -> None:
        # Not settled, so not acknowledged: the device sends them again. They leave the queue before
        # their places are given to others.
        for chunk in self._unsettled:
            self._intake.withdraw(chunk.outcome)
            if chunk.published is not None:
                chunk.published.cancel()
        self._unsettled.clear()
        self._account.close()


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


def _published(chunk: _Unsettled) -> ChunkResult | None:
    # Cancelled is given up by a hub that closes: not published, so never acknowledged.
    if chunk.published is None or not chunk.published.done() or chunk.published.cancelled():
        return None
    return chunk.result


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
