"""The way up: a queue of chunks that outlives connections, and the connections.

    put / offer → Backlog ⇄ FaceStream (one call) ⇄ server
                   │ ▲ kept until settled  │ broken, silent or drained
                   │ └──────── again ◀─────┘ at the next server, after a jittered wait
                   └→ Spool (a disk, if any) → CatchUp ⇄ server, beside the live stream

The queue is bounded. Who can wait (a file) waits; who cannot (a camera) loses the oldest chunk
that was not sent yet, and the loss is counted; with a spool it waits on disk instead.
"""

import asyncio
import contextlib
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
from edge_encoder.dialling import PLAIN, Dialler
from edge_encoder.epochs import Epochs
from edge_encoder.face_stream import BrokenStreamError, Ending, FaceStream, OnBundle
from edge_encoder.metrics import BEHIND, ROTATED, UNKNOWN_BUNDLE, Metrics
from edge_encoder.servers import Servers, Target
from edge_encoder.spool.catch_up import CatchUp, OnLateAnswer
from edge_encoder.spool.store import Spool
from edge_encoder.wire import WireMeter
from mien.backoff import Backoff
from mien.errors import PolicyError, ProtocolError, UnavailableError, UnknownBundleError
from mien.messages.downward import Welcome
from mien.messages.results import ChunkResult, ItemStatus
from mien.messages.upward import Hello
from mien.v1.recognition_pb2_grpc import RecognitionServiceStub

if TYPE_CHECKING:  # a name of the type stubs only
    from mien.v1.recognition_pb2_grpc import RecognitionServiceAsyncStub

_log = logging.getLogger(__name__)

CHANNEL_OPTIONS: Final = (
    # Every attempt is a connection of its own: waits are ours, and its bytes can be counted.
    ("grpc.use_local_subchannel_pool", 1),
    # Bandwidth probes cost bytes and find nothing at a few hundred bytes a second.
    ("grpc.http2.bdp_probe", 0),
    # Pings are for idle streams; unlimited, for their pace is bounded by keepalive_s.
    ("grpc.http2.max_pings_without_data", 0),
)

# A recognizer that is back has its devices back within two seconds. A few hundred of them, trying
# that often for as long as it is away, are little to it; and no two in step.
LONGEST_WAIT_S: Final = 1.5

OnResult = Callable[[Chunk, ChunkResult], None]


@dataclass(frozen=True)
class UplinkSettings:
    """How patient the uplink is, in seconds, and how much it keeps in memory, in chunks.

    give_up_s: infinite for who goes on without a server, for the spool takes what comes; such a run
    also ends without one. keepalive_s: the silence after which a server is asked for a sign of
    life, for which it has answer_timeout_s. late_chunks_per_s: the pace of what waits in the spool.
    """

    queue_chunks: int = 64
    give_up_s: float = 30.0
    welcome_timeout_s: float = 5.0
    answer_timeout_s: float = 10.0
    keepalive_s: float = 45.0
    late_chunks_per_s: float = 8.0


class Uplink:
    """Sends chunks and hands their results to `on_result`. A context manager.

    servers: one of them at a time gets the chunks; a walk through them begins when one fails.
    on_bundle: called with the bundle that the server wants, by Welcome and whenever it changes.
    on_layers: called when the server asks for enhancement layers.
    dialler: makes the channels.
    spool: where chunks wait on disk. The results of those of earlier runs go to `on_late_result`,
    with the Hello of their epoch.

    Every method raises what made the uplink give up: UnavailableError after `give_up_s` without
    a server that answers, UnknownBundleError, PolicyError, ProtocolError.
    """

    def __init__(
        self,
        servers: Servers,
        settings: UplinkSettings,
        hello: Hello,
        on_result: OnResult,
        metrics: Metrics,
        *,
        on_bundle: OnBundle = lambda _: None,
        on_layers: Callable[[], None] = lambda: None,
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.monotonic,
        spool: Spool | None = None,
        on_late_result: OnLateAnswer = lambda hello, chunk, result: None,
        dialler: Dialler = PLAIN,
    ) -> None:
        self._dialler = dialler
        self._servers = servers
        self._walk = servers.walk()
        self._settings = settings
        self._on_result = on_result
        self._on_bundle = on_bundle
        self._on_layers = on_layers
        self._on_late_result = on_late_result
        self._metrics = metrics
        self._backoff = backoff or Backoff(longest_s=LONGEST_WAIT_S)
        self._clock = clock
        self._start_unix_ms = hello.epoch_start_unix_ms
        self._epochs = Epochs(hello, settings.queue_chunks, metrics, spool)
        self._catch_up = self._catching_up(spool) if spool else None
        self._patient = spool is not None and math.isinf(settings.give_up_s)
        self._wire = WireMeter()
        self._stream: FaceStream | None = None
        self._connected = asyncio.Event()
        self._welcome: Welcome | None = None
        self._finishing = asyncio.Event()
        self._not_before_s: dict[Target, float] = {}  # who has asked to be left alone until then
        self._failure: BaseException | None = None
        self._progress = asyncio.Event()
        self._no_progress_since_s: float | None = clock()
        self._last_problem = "no attempt was made yet"
        self._reasons: set[str] = set()  # why attempts failed since the last success

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
    def lag_s(self) -> float:
        """How long the oldest unanswered chunk has waited, with or without a connection."""
        return self._epochs.backlog.lag_s

    @property
    def connected(self) -> bool:
        """Whether a server has welcomed the device, and the stream is open."""
        return self._connected.is_set()

    @property
    def held_back(self) -> bool:
        """Whether chunks wait for the server's credits."""
        return self._stream is not None and self._stream.held_back

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
        self._finishing.set()
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
            self._stream.changed(finishing=self._finishing.is_set())

    async def _keep_connected(self) -> None:
        try:
            target, _ = await self._walk.advance()
            while not self._is_done:
                reason = await self._connect(target)
                if reason is None:
                    break
                if not self._is_done:
                    target = await self._next(target, reason)
            self._epochs.abandon()
        except Exception as error:  # a defect must not leave the others waiting for ever, either
            self._failure = error
        finally:
            asyncio.get_running_loop().call_soon(self._progress.set)

    @property
    def _is_done(self) -> bool:
        """Whether no further stream is needed; asked while there is none."""
        settled = self._welcome is not None and self._epochs.backlog.is_empty
        return self._finishing.is_set() and (settled or self._patient)

    async def _connect(self, target: Target) -> str | None:
        """One connection and one call; why it ended, None when nothing is left to do.

        Raises PolicyError where the server does not allow what is declared, ProtocolError where it
        refuses for another reason, or breaks the contract.
        """
        self._wire.count(target.endpoints)
        options = (*CHANNEL_OPTIONS, *self._keepalive)
        async with self._dialler.channel(target, options) as channel:
            hello, backlog = self._epochs.next()
            self._stream = FaceStream(
                backlog,
                lambda welcome, lost: self._on_welcome(target, hello, backlog, welcome, lost),
                self._on_answer,
                self._on_bundle,
                self._on_layers,
                welcome_timeout_s=self._settings.welcome_timeout_s,
                answer_timeout_s=self._settings.answer_timeout_s,
                clock=self._clock,
            )
            self._stream.changed(finishing=self._finishing.is_set())
            try:
                ending = await self._run(self._stream, RecognitionServiceStub(channel), hello)
            except BrokenStreamError as error:
                self._last_problem = f"{target}: {error}"
                self._leave_alone(target, error.retry_after_s)
                return error.reason
            except UnknownBundleError as error:
                self._last_problem = f"{target}: {error}"
                return UNKNOWN_BUNDLE
            except PolicyError as error:
                raise PolicyError(
                    f"{target} does not let this device in: {error}. What it declares is set by "
                    "context, exception, purpose and notice"
                ) from error
            except grpc.aio.AioRpcError as error:
                said = f"{error.code().name}: {error.details()}"
                raise ProtocolError(f"{target} ended the stream with {said}") from error
            finally:
                self._stream = None
                self._connected.clear()
                self._metrics.connected.set(0)
                self._metrics.server_position.set(0)
                self._wire.sample()
            self._last_problem = f"{target}: {ending.value}"
            self._epochs.lose_unanswered(backlog.abandon_acknowledged())
            return None if ending is Ending.FINISHED else ending.name.lower()

    @property
    def _keepalive(self) -> tuple[tuple[str, int], ...]:
        time_ms, timeout_ms = (
            round(seconds * 1000)
            for seconds in (self._settings.keepalive_s, self._settings.answer_timeout_s)
        )
        return (
            ("grpc.keepalive_time_ms", time_ms),
            # On Linux also TCP_USER_TIMEOUT: for a peer whose kernel is gone, too.
            ("grpc.keepalive_timeout_ms", timeout_ms),
            # For one that takes bytes and answers none; a minute otherwise, whatever is said above.
            ("grpc.http2.ping_timeout_ms", timeout_ms),
        )

    async def _run(
        self, stream: FaceStream, stub: "RecognitionServiceAsyncStub", hello: Hello
    ) -> Ending:
        """The live stream, and from its Welcome to its end what waits on disk beside it."""
        live = asyncio.create_task(stream.run(stub, hello))
        late = asyncio.create_task(self._run_late(stub))
        rotation = asyncio.create_task(self._leave_when_rotated(stream))
        try:
            await asyncio.wait({live, late}, return_when=asyncio.FIRST_COMPLETED)
            if late.done() and not live.done():
                late.result()
            return await live
        finally:
            for task in (live, late, rotation):
                task.cancel()
            await asyncio.gather(live, late, rotation, return_exceptions=True)

    async def _leave_when_rotated(self, stream: FaceStream) -> None:
        await self._connected.wait()
        await self._dialler.until_rotated()
        _log.info("the certificate has changed: leaving the stream to dial with the new one")
        stream.leave()

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

    async def _next(self, target: Target, reason: str) -> Target:
        """Wait, and say what to dial next. Raises what the uplink gives up for."""
        if self._no_progress_since_s is None:
            self._no_progress_since_s = self._clock()
        self._reasons.add(reason)
        # Neither is the server's fault: it knows the most of what was sent.
        stays = reason in (BEHIND, ROTATED)
        following, round_is_over = (target, True) if stays else await self._walk.advance()
        if round_is_over:
            self._check_patience()
            self._reasons.clear()
        if following != target and self._catch_up is not None:
            self._catch_up.forget_refusals()
        self._metrics.reconnects.labels(reason).inc()
        # Another server needs no long wait, but a spread one: the others of this one come, too.
        wait_s = self._backoff.next_s() if round_is_over else self._backoff.soon_s()
        asked_s = self._not_before_s.get(following, 0.0) - asyncio.get_running_loop().time()
        if asked_s > 0:
            wait_s = max(wait_s, asked_s + self._backoff.soon_s())  # others were asked to, as well
        _log.info("%s; next attempt in %.2f s at %s", self._last_problem, wait_s, following)
        await self._pause(wait_s)
        return following

    def _leave_alone(self, target: Target, retry_after_s: float) -> None:
        """Note what a server has asked for; patience goes on, but is not looked at meanwhile."""
        now_s = asyncio.get_running_loop().time()
        noted = self._not_before_s | {target: now_s + retry_after_s}
        self._not_before_s = {
            target: until_s for target, until_s in noted.items() if until_s > now_s
        }

    async def _pause(self, wait_s: float) -> None:
        """Wait; no longer than until no further stream is needed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._finishing.wait()
                if not self._is_done:
                    await asyncio.sleep(wait_s)  # the rest of it

    def _check_patience(self) -> None:
        """Give up where it is time to, but never before each server had its turn."""
        if self._reasons == {UNKNOWN_BUNDLE}:
            raise UnknownBundleError(self._last_problem)
        now_s = self._clock()
        gone_s = now_s - (now_s if (since := self._no_progress_since_s) is None else since)
        if gone_s >= self._settings.give_up_s:
            raise UnavailableError(
                f"no recognizer at {self._servers} for {gone_s:.0f} s (--give_up_s): "
                f"{self._last_problem}. Is mien-cloud running there?"
            )

    def _on_welcome(
        self,
        target: Target,
        hello: Hello,
        backlog: Backlog,
        welcome: Welcome,
        unanswered: list[Chunk],
    ) -> None:
        _log.info(
            *("connected to %s: bundle %s, %d credits", target),
            *(welcome.bundle_id[:12], welcome.credits),
        )
        self._servers.begin_at(target)
        self._metrics.server_position.set(target.position)
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
        self._walk.succeeded()
        self._reasons.clear()
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
