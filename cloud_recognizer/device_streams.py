"""StreamFaces: the streams of devices to this recognizer, each from its Hello to its end.

A stream is two loops over one DeviceStream: one reads chunks into it, the other writes what it
settles.
"""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import grpc
from google.protobuf.message import DecodeError

from cloud_recognizer.access import Access, caller_of
from cloud_recognizer.accuracy.estimate import Accuracy
from cloud_recognizer.admission import Admission
from cloud_recognizer.archive.archive import Archive
from cloud_recognizer.bundles.catalogue import Catalogue
from cloud_recognizer.bundles.device_bundle import DeviceBundle, choose_model
from cloud_recognizer.config import CloudConfig
from cloud_recognizer.credits import CreditLedger
from cloud_recognizer.hub.contract import Hub
from cloud_recognizer.identity_end import IdentityEnd
from cloud_recognizer.intake import Intake
from cloud_recognizer.layer_requests import LayerRequests
from cloud_recognizer.metrics import Metrics
from cloud_recognizer.rate_limit import RateLimits
from cloud_recognizer.sessions import Sessions
from cloud_recognizer.stream import DeviceStream
from cloud_recognizer.writing import write
from mien.errors import ProtocolError, UnavailableError
from mien.messages.downward import Downward, Drain, downward_to_proto
from mien.messages.upward import EncodedChunk, Hello, upward_from_proto
from mien.v1 import recognition_pb2 as pb

if TYPE_CHECKING:  # needs mien[tracing]
    from mien.spans import Tracing

StreamContext = grpc.aio.ServicerContext[pb.StreamFacesRequest, pb.StreamFacesResponse]


class DeviceStreams:
    """Opens streams until it drains, and wakes those that are open.

    access: says who calls; None over plaintext. tracing, archive: see DeviceStream.
    """

    def __init__(
        self,
        config: CloudConfig,
        models: Catalogue,
        intake: Intake,
        ledger: CreditLedger,
        hub: Hub,
        metrics: Metrics,
        accuracy: Accuracy,
        admission: Admission,
        layers: LayerRequests,
        *,
        access: Access | None,
        rates: RateLimits,
        tracing: "Tracing | None" = None,
        archive: Archive | None = None,
    ) -> None:
        self._config = config
        self._models = models
        self._intake = intake
        self._ledger = ledger
        self._hub = hub
        self._metrics = metrics
        self._accuracy = accuracy
        self._admission = admission
        self._layers = layers
        self._access = access
        self._rates = rates
        self._tracing = tracing
        self._archive = archive
        layers.ask = self._ask_for_layers
        self._sessions = Sessions(
            metrics,
            max_streams=config.max_streams,
            max_device_streams=config.max_device_streams,
            capacity=config.max_sessions,
        )
        self._streams: set[DeviceStream] = set()
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()
        models.on_change(self._wake_streams)

    async def serve(self, context: StreamContext) -> None:
        """Serve one stream until the device has closed its side and has all its answers.

        Raises the domain error that the stream is to end with.
        """
        hello = await self._hello(context)
        caller = caller_of(self._access, context)
        if caller is not None:
            caller.check_device(hello.device_id)
        self._admission.admit(hello)
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

    def connected(self) -> dict[str, float]:
        """Id of each device with an open stream → seconds since it sent faces, or since it came."""
        silent_s: dict[str, float] = {}
        for stream in self._streams:  # a device may have a late one beside its live one
            known_s = silent_s.get(stream.device_id, stream.silent_s)
            silent_s[stream.device_id] = min(known_s, stream.silent_s)
        return silent_s

    async def drain(self) -> None:
        """Ask every device to go, open no new stream; return when the last one has left."""
        self._draining = True
        self._wake_streams()
        await self._idle.wait()

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

    @contextlib.contextmanager
    def _open(self, hello: Hello) -> Iterator[DeviceStream]:
        stream = DeviceStream(
            hello,
            choose_model(self._models, hello),
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

    def _ask_for_layers(self, device_id: str) -> bool:
        streams = [stream for stream in self._streams if stream.device_id == device_id]
        for stream in streams:
            stream.ask_for_layers()
        return bool(streams)

    def _wake_streams(self) -> None:
        for stream in self._streams:
            stream.wake.set()


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
