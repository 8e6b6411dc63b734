"""A real recognizer on port 0, and the ends of the wire that tests hold in their hands."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from google.rpc.error_details_pb2 import RetryInfo
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from opentelemetry.sdk.trace.export import SpanExporter

from cloud_recognizer.bundles.repository import LoadModel
from cloud_recognizer.config import CloudConfig
from cloud_recognizer.metrics import Metrics
from cloud_recognizer.model import ExpressionModel
from cloud_recognizer.server import Serving, serving
from mien.bitstream import Box, EncodedFace
from mien.bundle import Bundle
from mien.declaration import ContextOfUse
from mien.messages.downward import Acknowledgement, Credits, Downward, Welcome, downward_from_proto
from mien.messages.results import ChunkResult
from mien.messages.upward import EncodedChunk, Hello, upward_to_proto
from mien.v1 import recognition_pb2 as pb
from mien.v1.recognition_pb2_grpc import RecognitionServiceStub
from tests.support.tiny_bundle import tiny_symbols

if TYPE_CHECKING:  # a type only, there is no such class at run time
    from mien.v1.recognition_pb2_grpc import RecognitionServiceAsyncStub

RPC_TIMEOUT_S = 60
# What a client leaves unread soon blocks the server's writes, instead of after megabytes.
SMALL_WINDOW = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 8192))


@dataclass(frozen=True)
class Running:
    """A recognizer that serves in this process, and a channel to it."""

    serving: Serving
    metrics: Metrics
    channel: grpc.aio.Channel

    @property
    def stub(self) -> "RecognitionServiceAsyncStub":
        return RecognitionServiceStub(self.channel)

    def sample(self, name: str, **labels: str) -> float:
        """A metric's value, 0 while it has none."""
        return self.metrics.registry.get_sample_value(f"mien_cloud_{name}", labels) or 0.0


@asynccontextmanager
async def running_recognizer(
    bundles: Path,
    load: LoadModel = ExpressionModel,
    exporter: SpanExporter | None = None,
    **settings: Any,
) -> AsyncIterator[Running]:
    """Serve in this process and connect; both end with the context. exporter: of traces."""
    defaults: dict[str, Any] = {"port": 0, "metrics_port": None, "drain_grace_s": 0.0}
    config = CloudConfig(bundles, **(defaults | settings))
    metrics = Metrics()
    async with (
        serving(config, metrics, load, exporter) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", SMALL_WINDOW) as channel,
    ):
        yield Running(server, metrics, channel)


class Device:
    """The device's end of StreamFaces, for `timeout_s` seconds; None: as long as it is asked to."""

    def __init__(
        self, stub: "RecognitionServiceAsyncStub", timeout_s: float | None = RPC_TIMEOUT_S
    ) -> None:
        self.call = stub.StreamFaces(timeout=timeout_s)

    async def open(self, hello: Hello) -> Welcome:
        await self.call.write(upward_to_proto(hello))
        welcome = await self.read()
        assert isinstance(welcome, Welcome)
        return welcome

    async def send(
        self,
        seq: int,
        payload: bytes,
        layers: tuple[bytes, ...] = (),
        trace_context: bytes = b"",
    ) -> None:
        await self.call.write(upward_to_proto(EncodedChunk(seq, payload, layers, trace_context)))

    async def read(self) -> Downward | None:
        """The next message, None when the server has ended the stream without an error."""
        response = await self.call.read()
        return (
            downward_from_proto(response) if isinstance(response, pb.StreamFacesResponse) else None
        )

    async def close(self) -> "Answers":
        """Close the device's side and read the stream to its end."""
        await self.call.done_writing()
        messages = []
        while (message := await self.read()) is not None:
            messages.append(message)
        return Answers(messages)

    async def acknowledged(self, seq: int) -> "Answers":
        """Read until everything up to `seq` is acknowledged and its credits are back."""
        messages: list[Downward] = []
        done = False
        while not (done and isinstance(messages[-1], Credits)):
            message = await self.read()
            assert message is not None, f"the stream ended before {seq} was acknowledged"
            messages.append(message)
            done = done or (isinstance(message, Acknowledgement) and message.seq >= seq)
        return Answers(messages)

    async def status(self) -> tuple[grpc.StatusCode, str]:
        """How the server ended the stream, whatever was not read before."""
        try:
            while await self.read() is not None:
                pass
        except grpc.aio.AioRpcError:
            pass
        return await self.call.code(), await self.call.details()


@dataclass(frozen=True)
class Answers:
    """What came down a stream, in its order."""

    messages: Sequence[Downward]

    @property
    def results(self) -> list[ChunkResult]:
        return [message for message in self.messages if isinstance(message, ChunkResult)]

    @property
    def acknowledged(self) -> list[int]:
        return [message.seq for message in self.messages if isinstance(message, Acknowledgement)]

    @property
    def credits(self) -> int:
        return sum(message.chunks for message in self.messages if isinstance(message, Credits))


def hello(bundle: Bundle, device_id: str = "door", epoch: int = 1) -> Hello:
    """The Hello of a device that has one bundle."""
    return Hello(
        *(device_id, epoch, 1_700_000_000_000, (bundle.bundle_id,), "a test", "none"),
        context=ContextOfUse.DEMONSTRATION,
    )


def payload(bundle: Bundle, faces: int = 3, *, track_id: int = 7, seed: int = 0) -> bytes:
    """A chunk of one track that moves to the right."""
    return bundle.codec().encode(
        [
            EncodedFace(40 * index, track_id, Box(10 + index, 20, 60, 64), symbols)
            for index, symbols in enumerate(tiny_symbols(faces, seed))
        ]
    )


def retry_delay_s(error: grpc.aio.AioRpcError) -> float:
    """The RetryInfo of a refused call, seconds."""
    status = rpc_status.from_call(error)
    assert status is not None
    (packed,) = [item for item in status.details if item.Is(RetryInfo.DESCRIPTOR)]
    retry = RetryInfo.FromString(packed.value)
    return retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9


async def health(
    channel: grpc.aio.Channel, service: str = "", *, wait_for_ready: bool = False
) -> int:
    """The status that a health check gives, a HealthCheckResponse.ServingStatus."""
    check = health_pb2_grpc.HealthStub(channel).Check  # type: ignore[attr-defined]  # has no types
    response: health_pb2.HealthCheckResponse = await check(
        health_pb2.HealthCheckRequest(service=service), timeout=30, wait_for_ready=wait_for_ready
    )
    return int(response.status)


async def eventually(holds: Callable[[], bool]) -> None:
    """Wait for what another task brings about; fails when it does not within 30 s."""
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.005)
