"""The way up: a queue of chunks that outlives connections, and the connections.

    put / offer → Backlog ⇄ FaceStream (one call) ⇄ server
                     ▲ kept until settled  │ broken, drained or refused
                     └──────── again ◀─────┘ after a jittered wait

The queue is bounded. Who can wait (a file) waits; who cannot (a camera) loses the oldest chunk
that was not sent yet, and the loss is counted.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import grpc

from edge_encoder.backlog import Backlog
from edge_encoder.chunker import Chunk
from edge_encoder.face_stream import MAX_IN_FLIGHT, Ending, FaceStream
from edge_encoder.metrics import UNANSWERED, UPLINK_FULL, Metrics
from edge_encoder.wire import WireMeter
from mien.backoff import Backoff
from mien.errors import MienError, ProtocolError, UnavailableError, UnknownBundleError
from mien.messages import ChunkResult, Hello, ItemStatus, Welcome
from mien.v1.recognition_pb2_grpc import RecognitionServiceStub

_log = logging.getLogger(__name__)

# A broken stream surfaces as any of the first three. All of these mean: come again.
RESUMABLE: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNKNOWN,
    }
)
CHANNEL_OPTIONS: Final = (
    # Every attempt is a connection of its own: waits are ours, and its bytes can be counted.
    ("grpc.use_local_subchannel_pool", 1),
    # Bandwidth probes cost bytes and find nothing at a few hundred bytes a second.
    ("grpc.http2.bdp_probe", 0),
)

OnResult = Callable[[Chunk, ChunkResult], None]


@dataclass(frozen=True)
class UplinkSettings:
    """How patient the uplink is, in seconds, and how much it keeps, in chunks."""

    server: str
    queue_chunks: int = 64
    give_up_s: float = 30.0
    welcome_timeout_s: float = 5.0
    answer_timeout_s: float = 10.0


class Uplink:
    """Sends chunks and hands their results to `on_result`. A context manager.

    Every method raises what made the uplink give up: UnavailableError after `give_up_s` without
    a server that answers, UnknownBundleError, ProtocolError.
    """

    def __init__(
        self,
        settings: UplinkSettings,
        hello: Hello,
        on_result: OnResult,
        metrics: Metrics,
        *,
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._hello = hello
        self._on_result = on_result
        self._metrics = metrics
        self._backoff = backoff or Backoff()
        self._clock = clock
        self._backlog = Backlog(settings.queue_chunks, MAX_IN_FLIGHT)
        metrics.queue_chunks.set_function(lambda: self._backlog.waiting)
        metrics.in_flight_chunks.set_function(lambda: self._backlog.in_flight)
        self._wire = WireMeter(settings.server)
        self._stream: FaceStream | None = None
        self._welcome: Welcome | None = None
        self._finishing = False
        self._failure: BaseException | None = None
        self._progress = asyncio.Event()
        self._no_progress_since_s: float | None = clock()
        self._last_problem = "no attempt was made yet"

    async def __aenter__(self) -> Self:
        self._no_progress_since_s = self._clock()
        self._task = asyncio.create_task(self._keep_connected(), name="uplink")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    @property
    def wire_bytes(self) -> int | None:
        """Bytes that TCP has carried up, by the latest sample; None where that is not known."""
        return self._wire.sample()

    async def welcomed(self) -> Welcome:
        """The server's first Welcome, as soon as it is there."""
        await self._until(lambda: self._welcome is not None)
        assert self._welcome is not None  # noqa: S101  # what was waited for
        return self._welcome

    async def put(self, chunk: Chunk) -> None:
        """Queue a chunk; when full, wait until there is room. For sources that can wait."""
        await self._until(lambda: not self._backlog.is_full)
        self.offer(chunk)

    def offer(self, chunk: Chunk) -> None:
        """Queue a chunk; when full, the oldest unsent one goes. For sources that cannot wait."""
        if self._failure is not None:
            raise self._failure
        dropped = self._backlog.offer(chunk)
        if dropped is not None:
            self._metrics.drop(UPLINK_FULL, len(dropped.frames))
        self._changed()

    async def finish(self) -> None:
        """Wait until every chunk is settled and the stream is closed."""
        self._finishing = True
        self._changed()
        await self._until(self._task.done)

    async def _until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            if self._failure is not None:
                raise self._failure
            self._progress.clear()
            await self._progress.wait()
        if self._failure is not None:
            raise self._failure

    def _changed(self) -> None:
        self._progress.set()
        if self._stream is not None:
            self._stream.changed(finishing=self._finishing)

    async def _keep_connected(self) -> None:
        try:
            while not (self._finishing and self._welcome and self._backlog.is_empty):
                if await self._connect() is Ending.FINISHED:
                    break
                await self._wait_before_next()
        except (MienError, grpc.aio.AioRpcError) as error:
            self._failure = _domain_error(self._settings.server, error)
        except Exception as error:  # a defect must not leave the others waiting for ever
            self._failure = error
        finally:
            asyncio.get_running_loop().call_soon(self._progress.set)

    async def _connect(self) -> Ending | None:
        """One connection and one call; None when it broke in a way that means: come again."""
        await asyncio.to_thread(self._wire.resolve)
        async with grpc.aio.insecure_channel(self._settings.server, CHANNEL_OPTIONS) as channel:
            self._stream = FaceStream(
                self._backlog,
                self._on_welcome,
                self._on_answer,
                welcome_timeout_s=self._settings.welcome_timeout_s,
                answer_timeout_s=self._settings.answer_timeout_s,
                clock=self._clock,
            )
            self._stream.changed(finishing=self._finishing)
            try:
                ending = await self._stream.run(RecognitionServiceStub(channel), self._hello)
            except UnavailableError as error:
                self._note(str(error))
                return None
            except grpc.aio.AioRpcError as error:
                if error.code() not in RESUMABLE:
                    raise
                self._note(f"{error.code().name}: {error.details()}")
                return None
            except (asyncio.CancelledError, asyncio.InvalidStateError):
                # grpc.aio shows some broken streams like this; a cancellation of ours is not one.
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                self._note("the stream broke")
                return None
            finally:
                self._stream = None
                self._wire.sample()
            self._note(ending.value)
            self._lose(self._backlog.abandon_acknowledged())
            return ending

    async def _wait_before_next(self) -> None:
        now_s = self._clock()
        if self._no_progress_since_s is None:
            self._no_progress_since_s = now_s
        gone_s = now_s - self._no_progress_since_s
        if gone_s >= self._settings.give_up_s:
            raise UnavailableError(
                f"no recognizer at {self._settings.server} for {gone_s:.0f} s (--give_up_s): "
                f"{self._last_problem}. Is mien-cloud running there?"
            )
        self._metrics.reconnects.inc()
        wait_s = self._backoff.next_s()
        _log.info("next attempt in %.2f s: %s", wait_s, self._last_problem)
        await asyncio.sleep(wait_s)

    def _note(self, problem: str) -> None:
        self._last_problem = problem

    def _on_welcome(self, welcome: Welcome, unanswered: list[Chunk]) -> None:
        _log.info("connected: bundle %s, %d credits", welcome.bundle_id[:12], welcome.credits)
        if self._backlog.is_empty:
            self._no_progress_since_s = None
        self._welcome = welcome
        self._lose(unanswered)
        self._progress.set()

    def _on_answer(self, chunk: Chunk, result: ChunkResult) -> None:
        # Only now: a server that welcomes and then breaks is none to hurry back to, nor for ever.
        self._backoff.reset()
        self._no_progress_since_s = None
        if result.status is ItemStatus.REJECTED:
            code = result.error.code if result.error else "unknown"
            _log.warning("chunk %d was rejected: %s", result.seq, result.error)
            self._metrics.reject(code, len(chunk.frames))
        self._on_result(chunk, result)
        self._progress.set()

    def _lose(self, chunks: list[Chunk]) -> None:
        """Settled by the server, but the connection broke before their results came."""
        if chunks:
            self._metrics.drop(UNANSWERED, sum(len(chunk.frames) for chunk in chunks))


def _domain_error(server: str, error: MienError | grpc.aio.AioRpcError) -> MienError:
    if isinstance(error, MienError):
        return error
    if error.code() is grpc.StatusCode.NOT_FOUND:
        return UnknownBundleError(f"{server}: {error.details()}")
    return ProtocolError(f"{server} ended the stream with {error.code().name}: {error.details()}")
