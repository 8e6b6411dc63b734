"""The way up: a queue of chunks that outlives connections, and the connections.

    put / offer → Backlog ⇄ FaceStream (one call) ⇄ server
                   │ ▲ kept until settled  │ broken, drained or refused
                   │ └──────── again ◀─────┘ after a jittered wait
                   └→ Spool (a disk, if any) → CatchUp ⇄ server, beside the live stream

The queue is bounded. Who can wait (a file) waits; who cannot (a camera) loses the oldest chunk
that was not sent yet, and the loss is counted; with a spool it waits on disk instead.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import grpc

from edge_encoder.backlog import Backlog
from edge_encoder.chunker import Chunk
from edge_encoder.epochs import Epochs
from edge_encoder.face_stream import Ending, FaceStream, OnBundle
from edge_encoder.metrics import Metrics
from edge_encoder.spool.catch_up import CatchUp, OnLateAnswer
from edge_encoder.spool.store import Spool
from edge_encoder.wire import WireMeter
from mien.backoff import Backoff
from mien.errors import MienError, ProtocolError, UnavailableError, UnknownBundleError
from mien.messages import ChunkResult, Hello, ItemStatus, Welcome
from mien.v1.recognition_pb2_grpc import RecognitionServiceStub

if TYPE_CHECKING:  # a name of the type stubs only
    from mien.v1.recognition_pb2_grpc import RecognitionServiceAsyncStub

_log = logging.getLogger(__name__)

CHANNEL_OPTIONS: Final = (
    # Every attempt is a connection of its own: waits are ours, and its bytes can be counted.
    ("grpc.use_local_subchannel_pool", 1),
    # Bandwidth probes cost bytes and find nothing at a few hundred bytes a second.
    ("grpc.http2.bdp_probe", 0),
)

OnResult = Callable[[Chunk, ChunkResult], None]


@dataclass(frozen=True)
class UplinkSettings:
    """How patient the uplink is, in seconds, and how much it keeps in memory, in chunks.

    give_up_s: infinite for who goes on without a server, for the spool takes what comes; such a run
    also ends without one. late_chunks_per_s: the pace of what waits in the spool.
    """

    server: str
    queue_chunks: int = 64
    give_up_s: float = 30.0
    welcome_timeout_s: float = 5.0
    answer_timeout_s: float = 10.0
    late_chunks_per_s: float = 8.0


class Uplink:
    """Sends chunks and hands their results to `on_result`. A context manager.

    on_bundle: called with the bundle that the server wants, by Welcome and whenever it changes.
    spool: where chunks wait on disk. The results of those of earlier runs go to `on_late_result`,
    with the Hello of their epoch.

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
        on_bundle: OnBundle = lambda _: None,
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.monotonic,
        spool: Spool | None = None,
        on_late_result: OnLateAnswer = lambda hello, chunk, result: None,
    ) -> None:
        self._settings = settings
        self._on_result = on_result
        self._on_bundle = on_bundle
        self._on_late_result = on_late_result
        self._metrics = metrics
        self._backoff = backoff or Backoff()
        self._clock = clock
        self._start_unix_ms = hello.epoch_start_unix_ms
        self._epochs = Epochs(hello, settings.queue_chunks, metrics, spool)
        self._catch_up = self._catching_up(spool) if spool else None
        self._patient = spool is not None and math.isinf(settings.give_up_s)
        self._wire = WireMeter(settings.server)
        self._stream: FaceStream | None = None
        self._connected = asyncio.Event()
        self._welcome: Welcome | None = None
        self._finishing = False
        self._failure: BaseException | None = None
        self._progress = asyncio.Event()
        self._no_progress_since_s: float | None = clock()
        self._last_problem = "no attempt was made yet"

    async def __aenter__(self) -> Self:
        self._no_progress_since_s = self._clock()
        self._task = asyncio.create_task(self._keep_connected(), name="uplink")
        self._upkeep = asyncio.create_task(self._epochs.keep_rules(), name="spool")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for task in (self._task, self._upkeep):
            task.cancel()
        await asyncio.gather(self._task, self._upkeep, return_exceptions=True)

    @property
    def welcome(self) -> Welcome | None:
        """The server's latest Welcome; None before the first."""
        return self._welcome

    @property
    def wire_bytes(self) -> int | None:
        """Bytes that TCP has carried up, by the latest sample; None where that is not known."""
        return self._wire.sample()

    def encode_with(self, bundle_id: str) -> None:
        """Tell the next stream that the device has this bundle now, and prefers it."""
        self._epochs.prefer(bundle_id)

    async def ready(self) -> Welcome | None:
        """The first Welcome, as soon as it is there; who goes on without a server need not wait."""
        await self._until(lambda: self._patient or self._welcome is not None)
        return self._welcome

    async def put(self, chunk: Chunk) -> None:
        """Queue a chunk; when full, wait until there is room. For sources that can wait."""
        await self._until(lambda: not self._epochs.backlog.is_full)
        self.offer(chunk)

    def offer(self, chunk: Chunk) -> None:
        """Queue a chunk; when full, the oldest unsent one leaves. For sources that cannot wait."""
        if self._failure is not None:
            raise self._failure
        self._epochs.offer(chunk)
        self._changed()

    async def finish(self) -> None:
        """Wait until every chunk is settled and the stream is closed.

        Who goes on without a server does not wait for one either: what is on disk stays there.
        """
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
            while not self._is_done:
                if await self._connect() is Ending.FINISHED:
                    break
                if not self._is_done:
                    await self._wait_before_next()
            self._epochs.abandon()
        except (MienError, grpc.aio.AioRpcError) as error:
            self._failure = _domain_error(self._settings.server, error)
        except Exception as error:  # a defect must not leave the others waiting for ever
            self._failure = error
        finally:
            asyncio.get_running_loop().call_soon(self._progress.set)

    @property
    def _is_done(self) -> bool:
        """Whether no further stream is needed; asked while there is none."""
        settled = self._welcome is not None and self._epochs.backlog.is_empty
        return self._finishing and (settled or self._patient)

    async def _connect(self) -> Ending | None:
        """One connection and one call; None when it broke in a way that means: come again."""
        await asyncio.to_thread(self._wire.resolve)
        async with grpc.aio.insecure_channel(self._settings.server, CHANNEL_OPTIONS) as channel:
            hello, backlog = self._epochs.next()
            self._connected.clear()
            self._stream = FaceStream(
                backlog,
                lambda welcome, lost: self._on_welcome(hello, backlog, welcome, lost),
                self._on_answer,
                self._on_bundle,
                welcome_timeout_s=self._settings.welcome_timeout_s,
                answer_timeout_s=self._settings.answer_timeout_s,
                clock=self._clock,
            )
            self._stream.changed(finishing=self._finishing)
            try:
                ending = await self._run(self._stream, RecognitionServiceStub(channel), hello)
            except UnavailableError as error:
                self._note(str(error))
                return None
            finally:
                self._stream = None
                self._metrics.connected.set(0)
                self._wire.sample()
            self._note(ending.value)
            self._epochs.lose_unanswered(backlog.abandon_acknowledged())
            return ending

    async def _run(
        self, stream: FaceStream, stub: "RecognitionServiceAsyncStub", hello: Hello
    ) -> Ending:
        """The live stream, and from its Welcome to its end what waits on disk beside it."""
        live = asyncio.create_task(stream.run(stub, hello))
        late = asyncio.create_task(self._run_late(stub))
        try:
            await asyncio.wait({live, late}, return_when=asyncio.FIRST_COMPLETED)
            if late.done() and not live.done():
                late.result()
            return await live
        finally:
            for task in (live, late):
                task.cancel()
            await asyncio.gather(live, late, return_exceptions=True)

    async def _run_late(self, stub: "RecognitionServiceAsyncStub") -> None:
        await self._connected.wait()
        if self._catch_up is not None:
            await self._catch_up.run(stub)

    def _catching_up(self, spool: Spool) -> CatchUp:
        return CatchUp(
            spool,
            self._metrics,
            self._on_late_answer,
            live_epoch=lambda: self._epochs.key,
            may_send=lambda: not self._epochs.backlog.waiting,
            turn=lambda: asyncio.sleep(1 / self._settings.late_chunks_per_s),
            welcome_timeout_s=self._settings.welcome_timeout_s,
            answer_timeout_s=self._settings.answer_timeout_s,
        )

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

    def _on_welcome(
        self, hello: Hello, backlog: Backlog, welcome: Welcome, unanswered: list[Chunk]
    ) -> None:
        _log.info("connected: bundle %s, %d credits", welcome.bundle_id[:12], welcome.credits)
        self._epochs.welcomed(hello, backlog)
        if backlog.is_empty:
            self._no_progress_since_s = None
        self._welcome = welcome
        self._epochs.lose_unanswered(unanswered)
        self._connected.set()
        self._metrics.connected.set(1)
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

    def _on_late_answer(self, hello: Hello, chunk: Chunk, result: ChunkResult) -> None:
        if hello.epoch_start_unix_ms == self._start_unix_ms:  # left behind by this very run
            self._on_result(chunk, result)
        else:
            self._on_late_result(hello, chunk, result)


def _domain_error(server: str, error: MienError | grpc.aio.AioRpcError) -> MienError:
    if isinstance(error, MienError):
        return error
    if error.code() is grpc.StatusCode.NOT_FOUND:
        return UnknownBundleError(f"{server}: {error.details()}")
    return ProtocolError(f"{server} ended the stream with {error.code().name}: {error.details()}")
