"""What calls may hold before anything of the service has seen them.

    headers ─▶ Guard (may they?) ─▶ a place ─▶ the request, read within a time ─▶ the service

gRPC for Python reads the request of a unary call before it asks anybody, however long that takes
and however long it is (8 MiB). Here it is read as the first message of a stream, which on the wire
is the same: once a caller is known and has a place, and not for ever.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError

from cloud_recognizer.access import RECOGNITION, Access, Context, share_of
from cloud_recognizer.config import CloudConfig
from cloud_recognizer.metrics import CALLS, REFLECTIONS, SLOW_REQUESTS, UNREAD_CALLS, Metrics
from cloud_recognizer.places import Places
from cloud_recognizer.status import aborting
from mien.errors import ProtocolError

# Calls whose request is not all there. Most are there at once.
MAX_UNREAD: Final = 1024
# After this a request counts as slow. What comes meanwhile is bounded by the network.
PROMPT_S: Final = 1.0
# Requests that are slow, of up to 8 MiB each.
MAX_SLOW: Final = 16
MAX_REFLECTIONS: Final = 16
# The part of each of these that one caller may have.
SHARE: Final = 4
# StreamFaces calls for each stream that may be open: as many may wait for their Hello, or be on
# their way out, and when a fleet comes back from an outage all of it does both.
CALLS_A_STREAM: Final = 2

STREAM_FACES: Final = f"/{RECOGNITION}/StreamFaces"

Behaviour = Callable[..., Any]


def connection_streams(config: CloudConfig) -> int:
    """HTTP/2 streams that one connection may have open: all that there can be a place for.

    Not fewer: a proxy has the streams of a whole fleet on one connection, and a gRPC client that
    meets this bound waits without a word, where the bounds of this module say what is wrong.
    """
    return CALLS_A_STREAM * config.max_streams + config.max_watchers + MAX_UNREAD


class Bounds(grpc.aio.ServerInterceptor):
    """Gives calls their places, and reads the requests of unary ones. To stand behind Guard."""

    def __init__(self, config: CloudConfig, metrics: Metrics, access: Access | None) -> None:
        self._metrics = metrics
        self._access = access
        self._request_s = config.hello_timeout_s
        self._unread = Places(
            *(metrics, UNREAD_CALLS, "calls whose request has not come"),
            capacity=MAX_UNREAD,
            each=MAX_UNREAD // SHARE,
        )
        self._slow = Places(
            *(metrics, SLOW_REQUESTS, "calls whose request comes slowly"),
            capacity=MAX_SLOW,
            each=MAX_SLOW // SHARE,
        )
        self._reflections = Places(
            *(metrics, REFLECTIONS, "reflection calls"),
            capacity=MAX_REFLECTIONS,
            each=MAX_REFLECTIONS // SHARE,
        )
        self._calls = Places(
            *(metrics, CALLS, "StreamFaces calls"),
            capacity=CALLS_A_STREAM * config.max_streams,
            each=CALLS_A_STREAM * config.max_device_streams,
        )

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """The method's handler, behind its bounds; as it is for what has none."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        coders = handler.request_deserializer, handler.response_serializer
        if handler.request_streaming:
            is_device = handler_call_details.method in (STREAM_FACES, STREAM_FACES.encode())
            bounded = self._called if is_device else self._reflected
            return grpc.stream_stream_rpc_method_handler(bounded(handler.stream_stream), *coders)
        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(self._read(handler.unary_stream), *coders)
        return grpc.stream_unary_rpc_method_handler(self._read(handler.unary_unary), *coders)

    def _called(self, behaviour: Behaviour) -> Behaviour:
        async def call(requests: Any, context: Context) -> None:
            async with aborting(context, self._metrics):
                with self._calls.one(share_of(self._access, context)):
                    await behaviour(requests, context)

        return call

    def _reflected(self, behaviour: Behaviour) -> Behaviour:
        async def call(requests: Any, context: Context) -> AsyncIterator[Any]:
            async with aborting(context, self._metrics):
                with self._reflections.one(share_of(self._access, context)):
                    async for response in behaviour(requests, context):
                        yield response

        return call

    def _read(self, behaviour: Behaviour) -> Behaviour:
        async def call(_: Any, context: Context) -> Any:
            async with aborting(context, self._metrics):
                request = await self._request(context, share_of(self._access, context))
            return await behaviour(request, context)

        return call

    async def _request(self, context: Context, caller: str | None) -> Any:
        with self._unread.one(caller):
            reading = asyncio.ensure_future(context.read())
            reading.add_done_callback(lambda done: done.cancelled() or done.exception())
            try:
                await asyncio.wait((reading,), timeout=min(PROMPT_S, self._request_s))
                if not reading.done():
                    with self._slow.one(caller):
                        left_s = self._request_s - PROMPT_S
                        await asyncio.wait((reading,), timeout=max(left_s, 0.0))
            finally:
                reading.cancel()
        if not reading.done():
            raise ProtocolError(f"no request came within {self._request_s:g} seconds")
        return _message(reading)


def _message(reading: "asyncio.Future[Any]") -> Any:
    try:
        request = reading.result()
    except DecodeError as error:
        raise ProtocolError(f"the request is no message of this call: {error}") from None
    if request is grpc.aio.EOF:
        raise ProtocolError("the call ended without a request")
    return request
