"""One device's stream: credits, the window of unsettled chunks, and what to answer.

receive(chunk) → intake → settle(): results in the order the chunks came, then one cumulative
acknowledgement and the credits that the ledger gives. Nothing here knows gRPC.

A chunk is settled once its result is published to the hub: from then on it is acknowledged, also
on the next stream of the same epoch, and never recognised again. So is what the hub knows to be
published already when the stream opens: another recognizer has settled it, or this one before it
was started anew.
"""

import asyncio
import time
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Self

from cloud_recognizer.accuracy.estimate import Accuracy
from cloud_recognizer.answers import count, joined
from cloud_recognizer.archive.archive import Archive
from cloud_recognizer.credits import CreditLedger
from cloud_recognizer.hub.contract import Hub, Origin
from cloud_recognizer.intake import Intake
from cloud_recognizer.layer_requests import LayerRequests
from cloud_recognizer.metrics import (
    CREDITS_WITHHELD,
    DUPLICATE,
    NO_CREDIT,
    STREAM_FACES,
    STREAM_REFUSED,
    Metrics,
)
from cloud_recognizer.model import ExpressionModel
from cloud_recognizer.rate_limit import DeviceRate, RateLimits
from cloud_recognizer.recognizer import Job, Outcome
from cloud_recognizer.sessions import Sessions
from cloud_recognizer.window import Unsettled, Window
from mien.bitstream import Limits
from mien.errors import (
    MienError,
    OverloadedError,
    ProtocolError,
    RateLimitedError,
)
from mien.messages.downward import (
    Acknowledgement,
    Credits,
    Downward,
    RequestLayers,
    Welcome,
)
from mien.messages.results import ChunkResult
from mien.messages.upward import EncodedChunk, Hello

if TYPE_CHECKING:  # needs mien[tracing]
    from mien.spans import Tracing


class DeviceStream:
    """The state of one stream after its Hello; a context manager that holds session and account.

    most: chunks that may be unsettled at a time. max_age_s: how old one may become.
    tracing: follows the traces of some chunks. archive: keeps those that are recognised.
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
        layers: LayerRequests,
        rates: RateLimits,
        *,
        most: int,
        max_age_s: float,
        tracing: "Tracing | None" = None,
        archive: Archive | None = None,
    ) -> None:
        self._hello = hello
        self._sessions = sessions
        self._intake = intake
        self._hub = hub
        self._ledger = ledger
        self._metrics = metrics
        self._accuracy = accuracy
        self._layers = layers
        self._layers_wanted = False
        self._rates = rates
        self._owed = 0  # credits of settled chunks that are not given back yet
        self._later: asyncio.TimerHandle | None = None
        # All streams of a device take its turns; of these the newest epoch's, which is live, goes
        # first.
        self._flow = intake.flow("stream", hello.device_id, max_chunks=most, rank=hello.epoch)
        self._max_age_s = max_age_s
        if hello.max_latency_ms:
            self._max_age_s = min(max_age_s, hello.max_latency_ms / 1000)
        self._archive = archive
        self._joining = tracing.of_stream() if tracing is not None else None
        self._duplicates = 0
        self._ended: MienError | None = None
        self._heard_s = time.monotonic()
        self.wake = asyncio.Event()  # set whenever there may be something to send
        origin = Origin(
            hello.device_id,
            hello.epoch,
            hello.epoch_start_unix_ms,
            model.bundle_id,
            model.expressions,
        )
        self._window = Window(origin, intake, hub, self.wake.set)

    def __enter__(self) -> Self:
        self._rate = self._opened_rate()
        self._session = self._sessions.enter(self._hello, self)
        try:
            self._account = self._ledger.open()
        except OverloadedError:
            self._sessions.leave(self._session, self)
            raise
        self._session.acknowledged_seq = self._highest_seq = max(
            self._session.acknowledged_seq,
            self._hub.published_seq(self._hello.device_id, self._hello.epoch),
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._sessions.leave(self._session, self)
        self._give_up()
        if self._later is not None:
            self._later.cancel()

    def _opened_rate(self) -> DeviceRate:
        """Raises RateLimitedError: a new stream's credits must not be a way round the rate."""
        rate = self._rates.of(self._hello.device_id)
        if wait_s := rate.wait_s():
            self._metrics.rate_limited.labels(STREAM_REFUSED).inc()
            raise RateLimitedError(
                f"this device has sent more than one may; come again in {wait_s:.1f} s", wait_s
            )
        return rate

    @property
    def silent_s(self) -> float:
        """Seconds since a chunk came, or since it was opened."""
        return time.monotonic() - self._heard_s

    @property
    def idle(self) -> bool:
        """Whether every chunk that was received is settled and answered."""
        return self._window.is_empty and not self._duplicates

    def welcome(self, limits: Limits, target_face_bytes: int) -> Welcome:
        """The answer to Hello."""
        return Welcome(
            bundle_id=self._window.origin.bundle_id,
            acknowledged_seq=self._session.acknowledged_seq,
            credits=self._account.balance,
            target_face_bytes=target_face_bytes,
            max_chunk_bytes=limits.max_chunk_bytes,
            max_chunk_faces=limits.max_faces,
        )

    def receive(self, chunk: EncodedChunk) -> None:
        """Take a chunk in.

        Raises OverloadedError beyond the credits and ProtocolError for a seq that is neither new
        nor a duplicate: both end the stream. So does what `end` was called with.
        """
        self._check_ended()
        try:
            self._account.spend()
        except OverloadedError:
            self._metrics.dropped.labels(NO_CREDIT).inc()
            raise
        self._metrics.payload_bytes.inc(len(chunk.payload))
        self._metrics.layer_bytes.inc(sum(map(len, chunk.layers)))
        self._rate.note_chunk()
        if self._is_duplicate(chunk.seq):
            self._metrics.dropped.labels(DUPLICATE).inc()
            self._duplicates += 1
            self.wake.set()
            return
        self._heard_s = received_s = time.monotonic()
        trace = self._joining.join(chunk.trace_context) if self._joining is not None else None
        outcome = self._intake.submit(Job(chunk.payload, trace), self._flow, self._max_age_s)
        if trace is not None:
            trace.lap("intake", payload_bytes=len(chunk.payload))
        kept = chunk.payload if self._archive is not None else b""
        self._window.add(Unsettled(chunk.seq, len(chunk.payload), received_s, outcome, trace, kept))
        self._highest_seq = chunk.seq
        self._layers.offer(self._hello.device_id, chunk)
        outcome.add_done_callback(lambda done: self._answered(done, received_s))

    def _answered(self, outcome: "asyncio.Future[Outcome]", received_s: float) -> None:
        # Here and not when it is settled: a device that reads slowly is no pressure on the others.
        if not outcome.cancelled():
            self._ledger.note_chunk(received_s, time.monotonic())
        self.wake.set()

    def _is_duplicate(self, seq: int) -> bool:
        if seq > self._highest_seq:
            return False
        if seq <= self._session.acknowledged_seq or self._window.holds(seq):
            return True
        raise ProtocolError(
            f"chunk.seq must increase within an epoch: {seq} came after {self._highest_seq}"
        )

    @property
    def device_id(self) -> str:
        """The device's name."""
        return self._hello.device_id

    def ask_for_layers(self) -> None:
        """Have `layer_request` asked once more."""
        self._layers_wanted = True
        self.wake.set()

    def layer_request(self) -> RequestLayers | None:
        """What to send when somebody waits for the device's layers, once for each that asked."""
        wanted, self._layers_wanted = self._layers_wanted, False
        return RequestLayers() if wanted else None

    def settle(self) -> list[Downward]:
        """Settle what is recognised, in order; return what to send.

        Raises what `end` was called with.
        """
        self._check_ended()
        answers: list[Downward] = []
        self._window.publish()
        while (settled := self._window.pop_published()) is not None:
            self._note_settled(*settled)
            answers.append(settled[1])
        returned = len(answers) + self._duplicates
        self._duplicates = 0
        if returned:
            answers.append(Acknowledgement(self._session.acknowledged_seq))
        self._owed += returned
        if self._owed and self._may_give() and (granted := self._settle_owed()):
            answers.append(Credits(granted))
        return answers

    def _settle_owed(self) -> int:
        owed, self._owed = self._owed, 0
        return self._account.settle(owed)

    def _may_give(self) -> bool:
        """Whether the device's rate allows more now; if not, `wake` is set when it does."""
        if self._later is not None and self._later.when() > asyncio.get_running_loop().time():
            return False
        wait_s = self._rate.wait_s()
        if not wait_s:
            return True
        self._metrics.rate_limited.labels(CREDITS_WITHHELD).inc()
        self._later = asyncio.get_running_loop().call_later(wait_s, self.wake.set)
        return False

    def as_written(self, answers: list[Downward]) -> list[Downward]:
        """What `settle` returned as the device takes it: joined, if it understands that.

        A message costs several times what a result in it does, in bytes and in time.
        """
        return [*joined(answers)] if self._hello.takes_settled else answers

    def _note_settled(self, chunk: Unsettled, result: ChunkResult) -> None:
        self._metrics.chunk_seconds.observe(time.monotonic() - chunk.received_s)
        self._session.acknowledged_seq = chunk.seq
        self._rate.note_faces(len(result.recognitions))
        count(self._metrics, result, STREAM_FACES, chunk.payload_bytes)
        self._accuracy.observe(self._hello, result)
        if self._archive is not None and result.recognitions:
            origin = replace(self._window.origin, bundle_id=result.bundle_id)
            self._archive.offer(origin, chunk.seq, chunk.payload)
        if chunk.trace is not None:
            chunk.trace.lap("publish")
            outcome = result.error.code if result.error else result.status.name.lower()
            chunk.trace.end(outcome, faces=len(result.recognitions))

    def end(self, error: MienError) -> None:
        """Settle nothing more, and end with this error: another stream has the place."""
        self._ended = error
        self._give_up()
        self.wake.set()

    def _check_ended(self) -> None:
        if self._ended is not None:
            raise self._ended

    def _give_up(self) -> None:
        self._window.give_up()
        self._account.close()
