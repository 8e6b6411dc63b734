"""Sends what waits on disk, beside the live stream and behind it.

    oldest epoch ─▶ Lane ─▶ FaceStream under that epoch's own Hello ─▶ the next one …
                     ▲
                     └── a turn at most every 1/chunks_per_s, and none while a live chunk waits

An epoch is a stream of its own because the server tells duplicates by (device, epoch, seq), and
because face times count from the epoch's start.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

import grpc

from edge_encoder.chunker import Chunk
from edge_encoder.face_stream import FaceStream
from edge_encoder.metrics import UNANSWERED, Metrics
from edge_encoder.spool.lane import Lane
from edge_encoder.spool.ledger import Key
from edge_encoder.spool.store import Spool, key_of
from edge_encoder.stream_ending import BrokenStreamError
from mien.backoff import Backoff
from mien.errors import MienError, SpoolError, UnavailableError
from mien.messages.results import ChunkResult, ItemStatus
from mien.messages.upward import Hello

if TYPE_CHECKING:  # a name of the type stubs only
    from mien.v1.recognition_pb2_grpc import RecognitionServiceAsyncStub

_log = logging.getLogger(__name__)

# How often it is looked for an epoch to send, when there was none.
IDLE_S: Final = 2.0
# How long an epoch is left alone that the server refuses, for instance for its bundle.
REFUSED_S: Final = 300.0

OnLateAnswer = Callable[[Hello, Chunk, ChunkResult], None]


class CatchUp:
    """Sends the epochs of a spool, the oldest first, all but the live one.

    live_epoch: the epoch that is not ours. may_send: whether no live chunk waits to be sent.
    turn: returns when the next chunk may go.
    """

    def __init__(
        self,
        spool: Spool,
        metrics: Metrics,
        on_answer: OnLateAnswer,
        *,
        live_epoch: Callable[[], Key],
        may_send: Callable[[], bool],
        turn: Callable[[], Awaitable[None]],
        welcome_timeout_s: float,
        answer_timeout_s: float,
    ) -> None:
        self._spool = spool
        self._metrics = metrics
        self._on_answer = on_answer
        self._live_epoch = live_epoch
        self._may_send = may_send
        self._turn = turn
        self._welcome_timeout_s = welcome_timeout_s
        self._answer_timeout_s = answer_timeout_s
        self._backoff = Backoff()
        self._refused: dict[Key, float] = {}

    def forget_refusals(self) -> None:
        """Another server comes: it may have what this one lacks."""
        self._refused = {}

    async def run(self, stub: "RecognitionServiceAsyncStub") -> None:
        """Until it is cancelled, which is when the live stream ends."""
        loop = asyncio.get_running_loop()
        while True:
            now_s = loop.time()
            refused = {key: until for key, until in self._refused.items() if until > now_s}
            self._refused = refused
            hello = self._spool.oldest_epoch({self._live_epoch(), *refused})
            if hello is None:
                await asyncio.sleep(IDLE_S)
                continue
            try:
                await self._send(stub, hello)
            except UnavailableError as error:
                _log.info("epoch %d waits on: %s", hello.epoch, error)
                asked_s = error.retry_after_s if isinstance(error, BrokenStreamError) else 0.0
                await asyncio.sleep(asked_s + self._backoff.next_s())
            except (MienError, grpc.aio.AioRpcError) as error:
                said = error.details() if isinstance(error, grpc.aio.AioRpcError) else error
                _log.warning("epoch %d cannot be sent at present: %s", hello.epoch, said)
                self._refused[key_of(hello)] = now_s + REFUSED_S

    async def _send(self, stub: "RecognitionServiceAsyncStub", hello: Hello) -> None:
        lane = Lane(self._spool, hello)
        stream = FaceStream(
            lane,
            lambda _, __: self._on_welcome(lane),
            lambda chunk, result: self._answered(hello, chunk, result),
            lambda _: None,  # what is coded already stays as it is
            lambda: None,  # and has no layers any more
            welcome_timeout_s=self._welcome_timeout_s,
            answer_timeout_s=self._answer_timeout_s,
        )
        stream.changed(finishing=True)
        pace = asyncio.create_task(self._pace(lane, stream))
        try:
            ending = await stream.run(stub, hello)
        finally:
            pace.cancel()
            await asyncio.gather(pace, return_exceptions=True)
            lane.release()
        if not lane.is_empty:
            raise UnavailableError(ending.value)
        if self._spool.failing:
            raise SpoolError("it is settled, but the disk may not let it be deleted")

    async def _pace(self, lane: Lane, stream: FaceStream) -> None:
        while True:
            await self._turn()
            if self._may_send():
                lane.allow()
                stream.changed(finishing=True)

    def _on_welcome(self, lane: Lane) -> None:
        if lane.unanswered_faces:
            self._metrics.drop(UNANSWERED, lane.unanswered_faces)

    def _answered(self, hello: Hello, chunk: Chunk, result: ChunkResult) -> None:
        self._backoff.reset()
        if result.status is ItemStatus.REJECTED:
            code = result.error.code if result.error else "unknown"
            _log.warning("chunk %d of epoch %d was rejected: %s", result.seq, hello.epoch, code)
            self._metrics.reject(code, len(chunk.frames))
        self._on_answer(hello, chunk, result)
