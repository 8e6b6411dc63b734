"""RecognitionService: protobuf and gRPC on one side, dataclasses and queues on the other.

A stream is two loops over one DeviceStream: one reads chunks into it, the other writes what it
settles. Only this side of the service aborts an RPC, by the table in `status`.
"""

import asyncio
import contextlib
import logging
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError

from cloud_recognizer.access import Access
from cloud_recognizer.accuracy.estimate import Accuracy
from cloud_recognizer.archive.archive import Archive
from cloud_recognizer.audit import AuditLog
from cloud_recognizer.bundles.catalogue import Catalogue
from cloud_recognizer.bundles.device_bundle import DeviceBundle
from cloud_recognizer.caller import Caller
from cloud_recognizer.config import CloudConfig
from cloud_recognizer.credits import CreditLedger
from cloud_recognizer.hub.contract import Hub
from cloud_recognizer.identity_end import IdentityEnd, within_identity
from cloud_recognizer.intake import Intake
from cloud_recognizer.layer_requests import LayerRequests
from cloud_recognizer.metrics import QUEUE_FULL, RECOGNIZE, Metrics
from cloud_recognizer.model import ExpressionModel
from cloud_recognizer.policy import REFUSALS, Policy
from cloud_recognizer.rate_limit import RateLimits
from cloud_recognizer.recognizer import Job
from cloud_recognizer.reconstruction import Reconstruction
from cloud_recognizer.sessions import Sessions
from cloud_recognizer.status import aborting
from cloud_recognizer.stream import DeviceStream, count, result_of
from cloud_recognizer.writing import write
from mien.declaration import ContextOfUse
from mien.errors import (
    OverloadedError,
    PolicyError,
    ProtocolError,
    UnavailableError,
    UnknownBundleError,
)
from mien.messages.downward import Downward, Drain, downward_to_proto
from mien.messages.ids import check_device_id
from mien.messages.labels import FaceLabel
from mien.messages.upward import EncodedChunk, Hello, upward_from_proto
from mien.v1 import recognition_pb2 as pb
from mien.v1.recognition_pb2_grpc import RecognitionServiceServicer

if TYPE_CHECKING:  # needs mien[tracing]
    from mien.spans import Tracing

_log = logging.getLogger(__name__)

MAX_PAYLOADS = 256
MAX_FILTERS = 1024
MAX_LABELS = 256
# How long a device has to send a chunk with layers: its longest chunk, and the way.
LAYERS_TIMEOUT_S = 10.0

StreamContext = grpc.aio.ServicerContext[pb.StreamFacesRequest, pb.StreamFacesResponse]


class RecognitionServicer(RecognitionServiceServicer):
    """Serves devices, backend consumers and watchers from one intake and one hub."""

    def __init__(
        self,
        config: CloudConfig,
        models: Catalogue,
        reconstruction: Reconstruction,
        intake: Intake,
        ledger: CreditLedger,
        hub: Hub,
        metrics: Metrics,
        accuracy: Accuracy,
        policy: Policy,
        audit: AuditLog,
        layers: LayerRequests,
        *,
        access: Access | None,
        rates: RateLimits,
        tracing: "Tracing | None" = None,
        archive: Archive | None = None,
    ) -> None:
        self._config = config
        self._models = models
        self._reconstruction = reconstruction
        self._intake = intake
        self._ledger = ledger
        self._hub = hub
        self._metrics = metrics
        self._accuracy = accuracy
        self._policy = policy
        self._audit = audit
        self._tracing = tracing
        self._archive = archive
        self._access = access
        self._rates = rates
        self._layers = layers
        layers.ask = self._ask_for_layers
        self._sessions = Sessions(
            metrics, max_streams=config.max_streams, capacity=config.max_sessions
        )
        self._streams: set[DeviceStream] = set()
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()
        models.on_change(self._wake_streams)
        for rule, context in REFUSALS:
            metrics.refused.labels(rule, context.word)

    async def StreamFaces(  # type: ignore[override]  # noqa: N802  # reader and writer, no generators
        self, request_iterator: object, context: StreamContext
    ) -> None:
        """See recognition.proto."""
        async with aborting(context, self._metrics):
            hello = await self._hello(context)
            caller = self._caller(context)
            if caller is not None:
                caller.check_device(hello.device_id)
            self._admit(hello)
            if self._draining:
                raise UnavailableError("the server is stopping; connect to another one")
            with self._models.lease() as lease, self._open(hello) as stream:
                welcome = stream.welcome(self._models.limits, self._config.target_face_bytes)
                await self._write(context, welcome)
                bundle = DeviceBundle(self._models, lease, hello, welcome.bundle_id)
                reader = asyncio.create_task(_read(context, stream))
                reader.add_done_callback(lambda _: stream.wake.set())
                grace_s = self._config.drain_grace_s
                try:
                    with IdentityEnd(caller, grace_s, stream.wake.set) as end:
                        await self._answer(context, stream, bundle, reader, end)
                finally:
                    reader.cancel()
                    await asyncio.gather(reader, return_exceptions=True)

    def _caller(self, context: grpc.aio.ServicerContext[Any, Any]) -> Caller | None:
        """Who calls; None over plaintext, where nobody is known."""
        return None if self._access is None else self._access.caller(context)

    async def _hello(self, context: StreamContext) -> Hello:
        try:
            async with asyncio.timeout(self._config.hello_timeout_s):
                request = await _next(context)
        except TimeoutError:
            raise ProtocolError(
                f"no hello came within {self._config.hello_timeout_s:g} seconds"
            ) from None
        if request is not None:
            first = upward_from_proto(request)
            if isinstance(first, Hello):
                return first
        raise ProtocolError("the first request of a stream must be hello")

    def _admit(self, hello: Hello) -> None:
        with self._counting_refusals():
            granted = self._policy.admit(hello)
        self._metrics.admitted.labels(hello.context.word).inc()
        level = logging.WARNING if hello.context is ContextOfUse.UNDECLARED else logging.INFO
        _log.log(
            level,
            "device %s is let in: context %s, purpose %r, notice %r%s",
            *(hello.device_id, hello.context.word, hello.purpose, hello.notice),
            f", exception {hello.exception.word}, granted for {granted!r}" if granted else "",
        )

    @contextlib.contextmanager
    def _counting_refusals(self) -> Iterator[None]:
        try:
            yield
        except PolicyError as error:
            self._metrics.refused.labels(error.rule, error.context).inc()
            raise

    def _choose(self, hello: Hello) -> ExpressionModel:
        """What the device is to use if it has it, else the first of the device's we serve."""
        wanted = self._models.wanted(hello.device_id)
        if wanted.bundle_id in hello.bundle_ids:
            return wanted
        for bundle_id in hello.bundle_ids:
            with contextlib.suppress(UnknownBundleError):
                return self._models.offered(bundle_id)
        if hello.fetches_bundles:
            return wanted
        raise UnknownBundleError(
            f"none of the device's {len(hello.bundle_ids)} bundles is served here; get "
            f"{wanted.bundle_id} with DownloadEncoder"
        )

    @contextlib.contextmanager
    def _open(self, hello: Hello) -> Iterator[DeviceStream]:
        stream = DeviceStream(
            hello,
            self._choose(hello),
            self._sessions,
            self._intake,
            self._ledger,
            self._hub,
            self._metrics,
            self._accuracy,
            self._layers,
            self._rates,
            most=self._config.credits,
            max_age_s=self._config.max_age_s,
            tracing=self._tracing,
            archive=self._archive,
        )
        with stream:
            self._streams.add(stream)
            self._idle.clear()
            try:
                yield stream
            finally:
                self._streams.discard(stream)
                if not self._streams:
                    self._idle.set()

    async def _answer(
        self,
        context: StreamContext,
        stream: DeviceStream,
        bundle: DeviceBundle,
        reader: "asyncio.Task[None]",
        end: IdentityEnd,
    ) -> None:
        """Write what is settled until the device has closed its side and has all its answers."""
        drain_said = False
        while True:
            stream.wake.clear()
            answers = stream.settle()
            for answer in answers:
                bundle.note(answer)
            for message in stream.as_written(answers):
                await self._write(context, message)
            if change := bundle.change():
                await self._write(context, change)
            if request := stream.layer_request():
                await self._write(context, request)
            end.check()
            if (self._draining or end.due) and not drain_said:
                drain_said = True
                grace_ms = round(self._config.drain_grace_s * 1000)
                await self._write(context, Drain(grace_ms))
            if reader.done():
                reader.result()
                if stream.idle:
                    return
            await stream.wake.wait()

    async def _write(self, context: StreamContext, message: Downward) -> None:
        await write(context, downward_to_proto(message), self._config.write_timeout_s)

    async def Recognize(  # noqa: N802
        self,
        request: pb.RecognizeRequest,
        context: grpc.aio.ServicerContext[pb.RecognizeRequest, pb.RecognizeResponse],
    ) -> pb.RecognizeResponse:
        """See recognition.proto. When there is no room for all chunks, the call is refused."""
        async with aborting(context, self._metrics):
            with self._counting_refusals():
                self._policy.admit_call()
            size = len(request.payloads)
            if size > MAX_PAYLOADS:
                raise ProtocolError(f"at most {MAX_PAYLOADS} payloads fit a call, got {size}")
            payloads = list(request.payloads)
            places = self._intake.places(payloads)
            try:
                self._ledger.reserve(places)
            except OverloadedError:
                self._metrics.dropped.labels(QUEUE_FULL).inc(size)
                raise
            try:
                max_age_s = min(self._config.max_age_s, _remaining_s(context))
                return await self._recognize(payloads, context.peer(), max_age_s)
            finally:
                self._ledger.release(places)

    async def _recognize(
        self, payloads: list[bytes], peer: str, max_age_s: float
    ) -> pb.RecognizeResponse:
        self._metrics.payload_bytes.inc(sum(map(len, payloads)))
        # The calls of one connection take turns with devices as one sender.
        flow = self._intake.flow("calls", peer, max_chunks=self._config.max_recognize_chunks)
        outcomes = [self._intake.submit(Job(payload), flow, max_age_s) for payload in payloads]
        try:
            await asyncio.gather(*outcomes, return_exceptions=True)
        finally:  # a cancelled call leaves some that still wait
            for outcome in outcomes:
                self._intake.withdraw(outcome)
        results = [result_of(seq, outcome) for seq, outcome in enumerate(outcomes, 1)]
        for payload, result in zip(payloads, results, strict=True):
            count(self._metrics, result, RECOGNIZE, len(payload))
            self._accuracy.observe(None, result)
        recognised = {
            done.bundle_id: done.expressions
            for done in (outcome.result() for outcome in outcomes if not outcome.exception())
            if done.recognitions
        }
        return pb.RecognizeResponse(
            results=[result.to_proto() for result in results],
            bundles=[
                pb.BundleExpressions(bundle_id=bundle_id, expressions=expressions)
                for bundle_id, expressions in recognised.items()
            ],
        )

    async def WatchRecognitions(  # type: ignore[override]  # noqa: N802  # a writer, no generator
        self,
        request: pb.WatchRecognitionsRequest,
        context: grpc.aio.ServicerContext[
            pb.WatchRecognitionsRequest, pb.WatchRecognitionsResponse
        ],
    ) -> None:
        """See recognition.proto. Initial metadata says that the subscription has begun."""
        async with aborting(context, self._metrics):
            caller = self._caller(context)
            if max(len(request.device_ids), len(request.track_ids)) > MAX_FILTERS:
                raise ProtocolError(f"a filter may name {MAX_FILTERS} devices or tracks")
            async with (
                self._hub.subscription(
                    request.device_ids, request.track_ids, request.resume_token
                ) as subscription,
                self._audit.watching(
                    context, caller, request.device_ids, request.track_ids
                ) as watching,
                within_identity(caller),
            ):
                await context.send_initial_metadata(())
                async for chunk in subscription:
                    await watching.note(chunk)
                    await context.write(chunk.to_proto())
            raise UnavailableError("the server is stopping; watch another one")

    async def Reconstruct(  # noqa: N802
        self,
        request: pb.ReconstructRequest,
        context: grpc.aio.ServicerContext[pb.ReconstructRequest, pb.ReconstructResponse],
    ) -> pb.ReconstructResponse:
        """See recognition.proto. When too many run already, the call is refused."""
        async with aborting(context, self._metrics):
            caller = self._caller(context)
            self._reconstruction.check_allowed()
            if request.device_id or self._audit.enabled:
                check_device_id("device_id", request.device_id)
            payload, layers = request.payload, tuple(request.layers)
            if not payload:
                check_device_id("device_id", request.device_id)
                chunk = await self._layers.next_of(request.device_id, LAYERS_TIMEOUT_S)
                payload, layers = chunk.payload, chunk.layers
            pictures = await self._reconstruction.pictures(payload, layers)
            await self._audit.reconstructed(context, caller, request.device_id, len(pictures))
            return pb.ReconstructResponse(
                faces=[
                    pb.ReconstructedFace(
                        index=picture.index,
                        time_ms=picture.time_ms,
                        track_id=picture.track_id,
                        png=picture.png,
                        layers=picture.layers,
                    )
                    for picture in pictures
                ]
            )

    def _ask_for_layers(self, device_id: str) -> bool:
        streams = [stream for stream in self._streams if stream.device_id == device_id]
        for stream in streams:
            stream.ask_for_layers()
        return bool(streams)

    async def ReportLabels(  # noqa: N802
        self,
        request: pb.ReportLabelsRequest,
        context: grpc.aio.ServicerContext[pb.ReportLabelsRequest, pb.ReportLabelsResponse],
    ) -> pb.ReportLabelsResponse:
        """See recognition.proto. A label that is malformed refuses the call, none is counted."""
        async with aborting(context, self._metrics):
            if (size := len(request.labels)) > MAX_LABELS:
                raise ProtocolError(f"at most {MAX_LABELS} labels fit a call, got {size}")
            labels = [FaceLabel.from_proto(label) for label in request.labels]
            results = self._accuracy.report(labels)
            return pb.ReportLabelsResponse(results=[result.to_proto() for result in results])

    async def drain(self) -> None:
        """Ask every device to go, open no new stream; return when the last one has left."""
        self._draining = True
        self._wake_streams()
        await self._idle.wait()

    def _wake_streams(self) -> None:
        for stream in self._streams:
            stream.wake.set()


def _remaining_s(context: grpc.aio.ServicerContext[Any, Any]) -> float:
    """Seconds until a call's own deadline, infinite when it has none."""
    remaining_s = context.time_remaining()
    return math.inf if remaining_s is None else max(remaining_s, 0.0)


async def _next(context: StreamContext) -> pb.StreamFacesRequest | None:
    """The device's next request, None when it has closed its side.

    Raises ProtocolError for bytes that are none: nothing unexpected, and no traceback to log.
    """
    try:
        request = await context.read()
    except DecodeError as error:
        raise ProtocolError(f"a request must be a StreamFacesRequest: {error}") from None
    return request if isinstance(request, pb.StreamFacesRequest) else None


async def _read(context: StreamContext, stream: DeviceStream) -> None:
    """Take in the device's chunks until it closes its side."""
    while (request := await _next(context)) is not None:
        message = upward_from_proto(request)
        if not isinstance(message, EncodedChunk):
            raise ProtocolError("hello may come once, as the first request of a stream")
        stream.receive(message)
