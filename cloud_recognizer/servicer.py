"""RecognitionService: protobuf and gRPC on one side, dataclasses and queues on the other.

Only this side of the service aborts an RPC, by the table in `status`.
"""

import asyncio
import math
from typing import Any

import grpc

from cloud_recognizer.access import Access, caller_of
from cloud_recognizer.accuracy.estimate import Accuracy
from cloud_recognizer.admission import Admission
from cloud_recognizer.answers import count, result_of
from cloud_recognizer.audit import AuditLog
from cloud_recognizer.config import CloudConfig
from cloud_recognizer.credits import CreditLedger
from cloud_recognizer.device_streams import DeviceStreams, StreamContext
from cloud_recognizer.hub.contract import Hub
from cloud_recognizer.identity_end import within_identity
from cloud_recognizer.intake import Intake
from cloud_recognizer.layer_requests import LayerRequests
from cloud_recognizer.metrics import QUEUE_FULL, RECOGNIZE, Metrics
from cloud_recognizer.recognizer import Job
from cloud_recognizer.reconstruction import Reconstruction
from cloud_recognizer.status import aborting
from cloud_recognizer.writing import write
from mien.errors import OverloadedError, ProtocolError, UnavailableError
from mien.messages.ids import check_device_id
from mien.messages.labels import FaceLabel
from mien.v1 import recognition_pb2 as pb
from mien.v1.recognition_pb2_grpc import RecognitionServiceServicer

MAX_PAYLOADS = 256
MAX_FILTERS = 1024
MAX_LABELS = 256
# How long a device has to send a chunk with layers: its longest chunk, and the way.
LAYERS_TIMEOUT_S = 10.0


class RecognitionServicer(RecognitionServiceServicer):
    """Serves devices, backend consumers and watchers from one intake and one hub."""

    def __init__(
        self,
        config: CloudConfig,
        streams: DeviceStreams,
        reconstruction: Reconstruction,
        intake: Intake,
        ledger: CreditLedger,
        hub: Hub,
        metrics: Metrics,
        accuracy: Accuracy,
        admission: Admission,
        audit: AuditLog,
        layers: LayerRequests,
        *,
        access: Access | None,
    ) -> None:
        self._config = config
        self._streams = streams
        self._reconstruction = reconstruction
        self._intake = intake
        self._ledger = ledger
        self._hub = hub
        self._metrics = metrics
        self._accuracy = accuracy
        self._admission = admission
        self._audit = audit
        self._layers = layers
        self._access = access

    async def StreamFaces(  # type: ignore[override]  # noqa: N802  # reader and writer, no generators
        self, request_iterator: object, context: StreamContext
    ) -> None:
        """See recognition.proto."""
        async with aborting(context, self._metrics):
            await self._streams.serve(context)

    async def Recognize(  # noqa: N802
        self,
        request: pb.RecognizeRequest,
        context: grpc.aio.ServicerContext[pb.RecognizeRequest, pb.RecognizeResponse],
    ) -> pb.RecognizeResponse:
        """See recognition.proto. When there is no room for all chunks, the call is refused."""
        async with aborting(context, self._metrics):
            self._admission.admit_call()
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
            caller = caller_of(self._access, context)
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
                    await write(context, chunk.to_proto(), self._config.write_timeout_s)
            raise UnavailableError("the server is stopping; watch another one")

    async def Reconstruct(  # noqa: N802
        self,
        request: pb.ReconstructRequest,
        context: grpc.aio.ServicerContext[pb.ReconstructRequest, pb.ReconstructResponse],
    ) -> pb.ReconstructResponse:
        """See recognition.proto. When too many run already, the call is refused."""
        async with aborting(context, self._metrics):
            caller = caller_of(self._access, context)
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


def _remaining_s(context: grpc.aio.ServicerContext[Any, Any]) -> float:
    """Seconds until a call's own deadline, infinite when it has none."""
    remaining_s = context.time_remaining()
    return math.inf if remaining_s is None else max(remaining_s, 0.0)
