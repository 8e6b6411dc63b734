"""The way up: a queue of chunks that outlives connections, and the connections.

    put / offer → Backlog ⇄ Connections ⇄ FaceStream (one call) ⇄ server
                   │ ▲ kept until settled        │ broken, silent or drained
                   │ └────────── again ◀─────────┘ where and when ReconnectPolicy says
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
from typing import Self

from edge_encoder.chunker import Chunk
from edge_encoder.connections import Connections
from edge_encoder.dialling import PLAIN, Dialler
from edge_encoder.epochs import Epochs
from edge_encoder.face_stream import OnBundle
from edge_encoder.metrics import Metrics
from edge_encoder.reconnect_policy import ReconnectPolicy
from edge_encoder.servers import Servers
from edge_encoder.spool.catch_up import CatchUp, OnLateAnswer
from edge_encoder.spool.store import Spool
from mien.backoff import Backoff
from mien.messages.downward import Welcome
from mien.messages.results import ChunkResult, ItemStatus
from mien.messages.upward import Hello

_log = logging.getLogger(__name__)

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
        self._settings = settings
        self._on_result = on_result
        self._on_late_result = on_late_result
        self._metrics = metrics
        self._start_unix_ms = hello.epoch_start_unix_ms
        self._epochs = Epochs(hello, settings.queue_chunks, metrics, spool)
        self._patient = spool is not None and math.isinf(settings.give_up_s)
        self._failure: BaseException | None = None
        self._progress = asyncio.Event()
        self._policy = ReconnectPolicy(servers, settings.give_up_s, backoff, clock)
        self._connections = Connections(
            dialler,
            self._policy,
            self._epochs,
            self._catching_up(spool) if spool else None,
            metrics,
            on_welcome=self._progress.set,
            on_answer=self._on_answer,
            on_bundle=on_bundle,
            on_layers=on_layers,
            patient=self._patient,
            keepalive_s=settings.keepalive_s,
            welcome_timeout_s=settings.welcome_timeout_s,
            answer_timeout_s=settings.answer_timeout_s,
            clock=clock,
        )

    async def __aenter__(self) -> Self:
        self._policy.begin()
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
        return self._connections.welcome

    @property
    def lag_s(self) -> float:
        """How long the oldest unanswered chunk has waited, with or without a connection."""
        return self._epochs.backlog.lag_s

    @property
    def connected(self) -> bool:
        """Whether a server has welcomed the device, and the stream is open."""
        return self._connections.connected

    @property
    def held_back(self) -> bool:
        """Whether chunks wait for the server's credits."""
        return self._connections.held_back

    @property
    def wire_bytes(self) -> int | None:
        """Bytes that TCP has carried up, by the latest sample; None where that is not known."""
        return self._connections.wire_bytes

    def encode_with(self, bundle_id: str) -> None:
        """Tell the next stream that the device has this bundle now, and prefers it."""
        self._epochs.prefer(bundle_id)

    async def ready(self) -> Welcome | None:
        """The first Welcome, as soon as it is there; who goes on without a server need not wait."""
        await self._until(lambda: self._patient or self.welcome is not None)
        return self.welcome

    async def put(self, chunk: Chunk) -> None:
        """Queue a chunk; when full, wait until there is room. For sources that can wait."""
        await self._until(lambda: not self._epochs.backlog.is_full)
        self.offer(chunk)

    def offer(self, chunk: Chunk) -> None:
        """Queue a chunk; when full, the oldest unsent one leaves. For sources that cannot wait."""
        if self._failure is not None:
            raise self._failure
        self._epochs.offer(chunk)
        self._progress.set()
        self._connections.changed()

    def shed(self, older_than_s: float) -> None:
        """Drop, and count, chunks that have waited in memory for longer and were never sent."""
        self._epochs.shed(older_than_s)

    async def finish(self) -> None:
        """Wait until every chunk is settled and the stream is closed.

        Who goes on without a server does not wait for one either: what is on disk stays there.
        """
        self._progress.set()
        self._connections.finish()
        await self._until(self._task.done)

    async def _until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            if self._failure is not None:
                raise self._failure
            self._progress.clear()
            await self._progress.wait()
        if self._failure is not None:
            raise self._failure

    async def _keep_connected(self) -> None:
        try:
            await self._connections.run()
            self._epochs.abandon()
        except Exception as error:  # a defect must not leave the others waiting for ever, either
            self._failure = error
        finally:
            asyncio.get_running_loop().call_soon(self._progress.set)

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

    def _on_answer(self, chunk: Chunk, result: ChunkResult) -> None:
        self._policy.answered()
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
