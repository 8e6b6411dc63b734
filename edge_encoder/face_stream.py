"""One StreamFaces call, from Hello to its end: chunks up within the credits, answers down.

What is owed to the server outlives the call, in a `Backlog` for the live epoch and on disk for
those before it; `connections` and `catch_up` open the next one.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Protocol

import grpc

from edge_encoder.chunker import Chunk
from edge_encoder.metrics import CANCELLED, CLOSED, SILENT
from edge_encoder.stream_ending import BrokenStreamError, Ending, meaning_of
from mien.errors import ProtocolError, UnknownBundleError
from mien.messages.downward import (
    Acknowledgement,
    Credits,
    Downward,
    Drain,
    RequestLayers,
    Settled,
    UseBundle,
    Welcome,
    downward_from_proto,
)
from mien.messages.results import ChunkResult, ItemStatus
from mien.messages.upward import EncodedChunk, Hello, upward_to_proto
from mien.v1 import recognition_pb2 as pb

if TYPE_CHECKING:  # a name of the type stubs only
    from mien.v1.recognition_pb2_grpc import RecognitionServiceAsyncStub

_log = logging.getLogger(__name__)

# However generous a server is with credits, what must be kept for sending again stays bounded.
MAX_IN_FLIGHT: Final = 256

OnAnswer = Callable[[Chunk, ChunkResult], None]
OnWelcome = Callable[[Welcome, list[Chunk]], None]
OnBundle = Callable[[str], None]
Call = grpc.aio.StreamStreamCall[pb.StreamFacesRequest, pb.StreamFacesResponse]


class Unsettled(Protocol):
    """The chunks that a stream is about; `Backlog` says what the methods do."""

    @property
    def in_flight(self) -> int:
        """Chunks that were sent and are not settled."""

    @property
    def is_empty(self) -> bool:
        """Whether every chunk is settled."""

    @property
    def behind(self) -> bool:
        """Whether nothing more may be sent for the first time."""

    @property
    def can_send(self) -> bool:
        """Whether `next_to_send` has one."""

    def next_to_send(self) -> tuple[int, Chunk]:
        """The next chunk with its seq."""

    def acknowledge(self, seq: int) -> None:
        """Everything up to `seq` is settled."""

    def answer(self, seq: int) -> Chunk | None:
        """Forget a chunk whose result or rejection came; None when that is not news."""

    def resume(self, acknowledged_seq: int) -> list[Chunk]:
        """A stream has begun; returns what is settled and was not answered."""


class FaceStream:
    """Drives one call over a backlog. `changed` is to be called when the backlog has grown.

    answer_timeout_s: with chunks in flight, the longest silence of the server.
    """

    def __init__(
        self,
        backlog: Unsettled,
        on_welcome: OnWelcome,
        on_answer: OnAnswer,
        on_bundle: OnBundle,
        on_layers: Callable[[], None],
        *,
        welcome_timeout_s: float,
        answer_timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._backlog = backlog
        self._on_welcome = on_welcome
        self._on_answer = on_answer
        self._on_bundle = on_bundle
        self._on_layers = on_layers
        self._welcome_timeout_s = welcome_timeout_s
        self._answer_timeout_s = answer_timeout_s
        self._clock = clock
        self._credits = 0
        self._heard_s = clock()
        self._drain: Drain | None = None
        self._finishing = False
        self._leaving = False
        self._wake = asyncio.Event()

    @property
    def held_back(self) -> bool:
        """Whether a chunk waits for a credit."""
        return not self._credits and self._backlog.can_send

    def changed(self, *, finishing: bool) -> None:
        """There is something to send, or nothing more will come."""
        self._finishing = finishing
        self._wake.set()

    def leave(self) -> None:
        """Send nothing more, take what is owed, and end in order: another call is to go on."""
        self._leaving = True
        self._wake.set()

    async def run(self, stub: "RecognitionServiceAsyncStub", hello: Hello) -> Ending:
        """Open a call and serve it until it ends.

        Raises BrokenStreamError, UnknownBundleError where the server has none of the device's
        bundles, PolicyError where it does not allow what the Hello declares, grpc.aio.AioRpcError
        where it refuses for another reason, and ProtocolError for answers that no server of this
        contract gives.
        """
        try:
            return await self._run(stub, hello)
        except grpc.aio.AioRpcError as error:
            meaning = meaning_of(error)
            if meaning is None:
                raise
            raise meaning from error
        except (asyncio.CancelledError, asyncio.InvalidStateError):
            # grpc.aio shows some broken streams like this; a cancellation of ours is not one.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise BrokenStreamError(CANCELLED, "the stream broke") from None

    async def _run(self, stub: "RecognitionServiceAsyncStub", hello: Hello) -> Ending:
        call = stub.StreamFaces()
        try:
            await self._open(call, hello)
            await self._exchange(call)
        finally:
            call.cancel()
        if self._is_finished:
            return Ending.FINISHED
        if self._backlog.behind:
            return Ending.BEHIND
        if self._leaving:
            return Ending.ROTATED
        return Ending.DRAINED if self._drain else Ending.CLOSED

    async def _exchange(self, call: Call) -> None:
        sender = asyncio.create_task(self._send(call))
        receiver = asyncio.create_task(self._receive(call))
        try:
            await asyncio.wait({sender, receiver}, return_when=asyncio.FIRST_COMPLETED)
            if not receiver.done() and sender.exception() is None:
                # Our side is closed; what the server still has to say has a limit.
                grace_s = self._drain.grace_ms / 1000 if self._drain else 0.0
                await asyncio.wait({receiver}, timeout=grace_s + self._welcome_timeout_s)
            for task in (receiver, sender):
                if task.done():
                    task.result()
        finally:
            receiver.cancel()
            sender.cancel()
            await asyncio.gather(receiver, sender, return_exceptions=True)

    @property
    def _is_finished(self) -> bool:
        return self._finishing and self._backlog.is_empty

    async def _open(self, call: Call, hello: Hello) -> None:
        try:
            async with asyncio.timeout(self._welcome_timeout_s):
                await call.write(upward_to_proto(replace(hello, takes_settled=True)))
                welcome = await _read(call)
        except TimeoutError:
            raise BrokenStreamError(
                SILENT, f"no Welcome within {self._welcome_timeout_s:g} s of Hello"
            ) from None
        if welcome is None:
            raise BrokenStreamError(CLOSED, "the server closed the stream before its Welcome")
        if not isinstance(welcome, Welcome):
            raise ProtocolError(
                f"the first message of a server must be Welcome, got {type(welcome).__name__}"
            )
        if welcome.bundle_id not in hello.bundle_ids and not hello.fetches_bundles:
            raise UnknownBundleError(
                f"the server chose bundle {welcome.bundle_id[:12]!r}; this device has another"
            )
        self._heard_s = self._clock()
        self._credits = welcome.credits
        self._on_welcome(welcome, self._backlog.resume(welcome.acknowledged_seq))
        self._on_bundle(welcome.bundle_id)

    async def _send(self, call: Call) -> None:
        """Write chunks while there are credits; at the end close our side."""
        while not (self._drain or self._leaving or self._is_finished or self._backlog.behind):
            if self._credits > 0 and self._backlog.can_send:
                seq, chunk = self._backlog.next_to_send()
                self._credits -= 1
                context = chunk.trace.sent(len(chunk.payload)) if chunk.trace else b""
                message = EncodedChunk(seq, chunk.payload, chunk.layers, context)
                await call.write(upward_to_proto(message))
                continue
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._answer_timeout_s):
                    await self._wake.wait()
            self._check_silence()
        await call.done_writing()

    def _check_silence(self) -> None:
        silent_s = self._clock() - self._heard_s
        if not self._backlog.in_flight:
            # Nothing is owed: silence means nothing, and counts from when something is.
            self._heard_s = self._clock()
        elif silent_s > self._answer_timeout_s:
            raise BrokenStreamError(
                SILENT, f"the server owes answers and is silent for {silent_s:.1f} s"
            )

    async def _receive(self, call: Call) -> None:
        """Take answers in until the server closes its side."""
        while (message := await _read(call)) is not None:
            self._heard_s = self._clock()
            self._handle(message)
            self._wake.set()

    def _handle(self, message: Downward) -> None:
        match message:
            case ChunkResult(seq=seq, status=status):
                if status is not ItemStatus.RECEIVED and (chunk := self._backlog.answer(seq)):
                    chunk.end_trace(message.error.code if message.error else status.name.lower())
                    self._on_answer(chunk, message)
            case Settled(parts=parts):
                for part in parts:
                    self._handle(part)
            case Acknowledgement(seq=seq):
                self._backlog.acknowledge(seq)
            case Credits(chunks=chunks):
                self._credits += chunks
            case Drain(grace_ms=grace_ms):
                _log.info("the server drains and closes the stream in %d ms", grace_ms)
                self._drain = message
            case UseBundle(bundle_id=bundle_id):
                self._on_bundle(bundle_id)
            case RequestLayers():
                self._on_layers()
            case Welcome():
                raise ProtocolError("Welcome may come once, as the first message of a stream")


async def _read(call: Call) -> Downward | None:
    """The next message this version knows; None when the server has closed its side."""
    while isinstance(response := await call.read(), pb.StreamFacesResponse):
        message = downward_from_proto(response)
        if message is not None:
            return message
    return None
