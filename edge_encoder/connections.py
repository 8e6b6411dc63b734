"""The uplink's connections, one after the other: dial, stream, learn why it ended, dial again."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import grpc

from edge_encoder.backlog import Backlog
from edge_encoder.chunker import Chunk
from edge_encoder.dialling import Dialler, stream_options
from edge_encoder.epochs import Epochs
from edge_encoder.face_stream import FaceStream, OnAnswer, OnBundle
from edge_encoder.metrics import UNKNOWN_BUNDLE, Metrics
from edge_encoder.reconnect_policy import ReconnectPolicy
from edge_encoder.servers import Target
from edge_encoder.spool.catch_up import CatchUp
from edge_encoder.stream_ending import BrokenStreamError, Ending
from edge_encoder.wire import WireMeter
from mien.errors import PolicyError, ProtocolError, UnknownBundleError
from mien.messages.downward import Welcome
from mien.messages.upward import Hello
from mien.v1.recognition_pb2_grpc import RecognitionServiceStub

if TYPE_CHECKING:  # a name of the type stubs only
    from mien.v1.recognition_pb2_grpc import RecognitionServiceAsyncStub

_log = logging.getLogger(__name__)


class Connections:
    """Sends what the epochs hold, over one connection at a time.

    catch_up: what waits on disk, sent beside the live stream; None without a spool.
    patient: whether the run goes on without a server, and ends without one, too.
    on_welcome: called after each Welcome. on_answer, on_bundle, on_layers: see FaceStream.
    """

    def __init__(
        self,
        dialler: Dialler,
        policy: ReconnectPolicy,
        epochs: Epochs,
        catch_up: CatchUp | None,
        metrics: Metrics,
        *,
        on_welcome: Callable[[], None],
        on_answer: OnAnswer,
        on_bundle: OnBundle,
        on_layers: Callable[[], None],
        patient: bool,
        keepalive_s: float,
        welcome_timeout_s: float,
        answer_timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._dialler = dialler
        self._policy = policy
        self._epochs = epochs
        self._catch_up = catch_up
        self._metrics = metrics
        self._on_welcome = on_welcome
        self._on_answer = on_answer
        self._on_bundle = on_bundle
        self._on_layers = on_layers
        self._patient = patient
        self._keepalive_s = keepalive_s
        self._welcome_timeout_s = welcome_timeout_s
        self._answer_timeout_s = answer_timeout_s
        self._clock = clock
        self._wire = WireMeter()
        self._stream: FaceStream | None = None
        self._connected = asyncio.Event()
        self._finishing = asyncio.Event()
        self.welcome: Welcome | None = None  # the latest

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

    def changed(self) -> None:
        """There is something to send."""
        if self._stream is not None:
            self._stream.changed(finishing=self._finishing.is_set())

    def finish(self) -> None:
        """Nothing more will come: `run` is to end once everything is settled."""
        self._finishing.set()
        self.changed()

    async def run(self) -> None:
        """Keep a stream open until no further one is needed.

        Raises what `ReconnectPolicy.next` gives up for, PolicyError where the server does not allow
        what is declared, ProtocolError where it refuses for another reason, or breaks the contract.
        """
        target = await self._policy.first()
        while not self._is_done:
            reason = await self._connect(target)
            if reason is None:
                break
            if not self._is_done:
                target = await self._next(target, reason)

    @property
    def _is_done(self) -> bool:
        """Whether no further stream is needed; asked while there is none."""
        settled = self.welcome is not None and self._epochs.backlog.is_empty
        return self._finishing.is_set() and (settled or self._patient)

    async def _connect(self, target: Target) -> str | None:
        """One connection and one call; why it ended, None when nothing is left to do."""
        self._wire.count(target.endpoints)
        options = stream_options(self._keepalive_s, self._answer_timeout_s)
        async with self._dialler.channel(target, options) as channel:
            hello, backlog = self._epochs.next()
            self._stream = self._stream_of(target, hello, backlog)
            self.changed()
            try:
                ending = await self._run(self._stream, RecognitionServiceStub(channel), hello)
            except BrokenStreamError as error:
                self._policy.failed(target, error)
                self._policy.leave_alone(target, error.retry_after_s)
                return error.reason
            except UnknownBundleError as error:
                self._policy.failed(target, error)
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
            self._policy.failed(target, ending.value)
            self._epochs.lose_unanswered(backlog.abandon_acknowledged())
            return None if ending is Ending.FINISHED else ending.name.lower()

    def _stream_of(self, target: Target, hello: Hello, backlog: Backlog) -> FaceStream:
        return FaceStream(
            backlog,
            lambda welcome, lost: self._welcomed(target, hello, backlog, welcome, lost),
            self._on_answer,
            self._on_bundle,
            self._on_layers,
            welcome_timeout_s=self._welcome_timeout_s,
            answer_timeout_s=self._answer_timeout_s,
            clock=self._clock,
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

    async def _next(self, target: Target, reason: str) -> Target:
        """Wait, and say what to dial next."""
        following, wait_s = await self._policy.next(target, reason)
        if following != target and self._catch_up is not None:
            self._catch_up.forget_refusals()
        self._metrics.reconnects.labels(reason).inc()
        await self._pause(wait_s)
        return following

    async def _pause(self, wait_s: float) -> None:
        """Wait; no longer than until no further stream is needed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._finishing.wait()
                if not self._is_done:
                    await asyncio.sleep(wait_s)  # the rest of it

    def _welcomed(
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
        self._metrics.server_position.set(target.position)
        self._epochs.welcomed(hello, backlog)
        self._policy.welcomed(target, owed=not backlog.is_empty)
        self.welcome = welcome
        self._epochs.lose_unanswered(unanswered)
        self._connected.set()
        self._metrics.connected.set(1)
        self._on_welcome()
