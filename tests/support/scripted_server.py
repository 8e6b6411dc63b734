"""A real gRPC server whose StreamFaces does what a test says: for what a recognizer never does."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc

from mien.messages.downward import Downward, downward_to_proto
from mien.messages.upward import EncodedChunk, Hello, Upward, upward_from_proto
from mien.v1 import recognition_pb2 as pb
from mien.v1.recognition_pb2_grpc import (
    RecognitionServiceServicer,
    add_RecognitionServiceServicer_to_server,
)

Context = grpc.aio.ServicerContext[pb.StreamFacesRequest, pb.StreamFacesResponse]


@dataclass
class DeviceStream:
    """The server's end of one stream."""

    context: Context
    hello: Hello | None = None
    chunks: list[EncodedChunk] = field(default_factory=list)

    async def read(self) -> Upward | None:
        """The next message; None when the device has closed its side."""
        request = await self.context.read()
        if not isinstance(request, pb.StreamFacesRequest):
            return None
        message = upward_from_proto(request)
        if isinstance(message, Hello):
            self.hello = message
        else:
            self.chunks.append(message)
        return message

    async def write(self, *messages: Downward) -> None:
        for message in messages:
            await self.context.write(downward_to_proto(message))


Script = Callable[[DeviceStream], Awaitable[None]]


class _Servicer(RecognitionServiceServicer):
    def __init__(self, scripts: Sequence[Script], streams: list[DeviceStream]) -> None:
        self._scripts = list(scripts)
        self._streams = streams

    async def StreamFaces(  # type: ignore[override]  # noqa: N802  # a reader and writer
        self, request_iterator: object, context: Context
    ) -> None:
        stream = DeviceStream(context)
        self._streams.append(stream)
        # The last script serves every further stream too.
        script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
        await script(stream)


@asynccontextmanager
async def scripted_server(
    *scripts: Script, port: int = 0
) -> AsyncIterator[tuple[str, list[DeviceStream]]]:
    """Serve streams by the scripts, one after the other; yields the address and the streams."""
    streams: list[DeviceStream] = []
    server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
    add_RecognitionServiceServicer_to_server(_Servicer(scripts, streams), server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield f"127.0.0.1:{bound}", streams
    finally:
        await server.stop(None)
        await asyncio.sleep(0)
