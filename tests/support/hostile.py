"""Clients that mean harm: payloads that nobody coded, and streams that break the contract."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any, Final

import grpc
import numpy as np

from mien.bitstream import HEADER_BYTES, Envelope, Limits
from mien.bundle import Bundle
from mien.messages.upward import EncodedChunk, Hello, upward_to_proto
from tests.support.recognizer import hello, payload

METHOD: Final = "/mien.v1.RecognitionService/StreamFaces"
TIMEOUT_S: Final = 300
# More than a device is ever granted without an answer.
FLOOD: Final = 2000
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

Call = grpc.aio.StreamStreamCall[bytes, bytes]
Behaviour = Callable[["HostileStreams", Call, int], Awaitable[None]]


def malformed_payloads(bundle: Bundle, count: int, seed: int) -> Iterator[bytes]:
    """Mutations of good payloads; half have a header and checksum that hold, and may mean faces."""
    random = np.random.Generator(np.random.PCG64(seed))
    good = [payload(bundle, 1 + n % 5, track_id=n, seed=n) for n in range(32)]
    envelope = Envelope(bundle.bundle_id, Limits().max_chunk_bytes)
    picks = random.integers(0, 1 << 30, (count, 4)).tolist()
    for kind, which, where, value in picks:
        data = bytearray(good[which % len(good)])
        place = where % len(data)
        match kind % 8:
            case 0:
                data[place] ^= 1 + value % 255
            case 1:
                del data[place:]
            case 2:
                data += value.to_bytes(4, "little")
            case 3:
                data = bytearray(random.bytes(place))
            case _:
                body = data[HEADER_BYTES:]
                place = where % len(body)
                match kind % 4:
                    case 0:
                        body[place] ^= 1 + value % 255
                    case 1:
                        del body[place:]
                    case 2:  # the head of one chunk, the rest of another
                        body[place:] = good[value % len(good)][HEADER_BYTES + place :]
                    case _:
                        body = bytearray(random.bytes(place + 1))
                data = bytearray(envelope.seal(bytes(body)))
        yield bytes(data)


class HostileStreams:
    """Streams of devices that do not keep to the contract, each in one of BEHAVIOURS.

    ended: (behaviour, status) → how many.
    """

    def __init__(self, bundle: Bundle, address: str, seed: int) -> None:
        self.bundle = bundle
        self._address = address
        self.random = np.random.Generator(np.random.PCG64(seed))
        self.ended: Counter[tuple[str, str]] = Counter()

    async def run(self, count: int, at_a_time: int = 16) -> None:
        """Open so many, one behaviour after the other. Returns when all have ended."""
        numbers = iter(range(count))

        async def some(channel: grpc.aio.Channel) -> None:
            for number in numbers:
                await self._one(channel, number)

        # Channels of their own connections, as devices have.
        options = (("grpc.use_local_subchannel_pool", 1),)
        async with contextlib.AsyncExitStack() as stack:
            channels = [
                await stack.enter_async_context(grpc.aio.insecure_channel(self._address, options))
                for _ in range(at_a_time)
            ]
            await asyncio.gather(*map(some, channels))

    async def _one(self, channel: grpc.aio.Channel, number: int) -> None:
        behave = BEHAVIOURS[number % len(BEHAVIOURS)]
        if behave is _no_http:
            await self._garbage()
            self.ended[behave.__name__, "-"] += 1
            return
        call: Call = channel.stream_stream(METHOD)(timeout=TIMEOUT_S)
        # What is broken may end while we still write: that is what is asked for.
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await behave(self, call, number)
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            # One that we have cancelled ourselves has nothing to read.
            while not call.cancelled() and await call.read() is not grpc.aio.EOF:
                pass
        self.ended[behave.__name__, (await call.code()).name] += 1

    async def _garbage(self) -> None:
        host, _, port = self._address.rpartition(":")
        _, writer = await asyncio.open_connection(host, int(port))
        beginning = _PREFACE if self.random.random() < 0.5 else b""
        writer.write(beginning + self.random.bytes(int(self.random.integers(1, 2000))))
        with contextlib.suppress(ConnectionError):
            await writer.drain()
            writer.close()
            await writer.wait_closed()

    def hello(self, number: int, **changes: Any) -> bytes:
        return message(replace(hello(self.bundle, f"hostile-{number}"), **changes))

    def damaged(self) -> bytes:
        """A payload whose checksum fails."""
        data = bytearray(payload(self.bundle))
        data[int(self.random.integers(HEADER_BYTES, len(data)))] ^= 0x55
        return bytes(data)


def message(sent: Hello | EncodedChunk) -> bytes:
    return upward_to_proto(sent).SerializeToString()


def chunk(seq: int, data: bytes = b"") -> bytes:
    return message(EncodedChunk(seq, data))


async def _no_http(streams: HostileStreams, call: Call, number: int) -> None:
    """Bytes that are no HTTP/2, or none after its beginning."""


async def _no_protobuf(streams: HostileStreams, call: Call, number: int) -> None:
    await call.write(b"\xff" + streams.random.bytes(int(streams.random.integers(1, 300))))


async def _nothing_in_it(streams: HostileStreams, call: Call, number: int) -> None:
    await call.write(b"")


async def _no_hello(streams: HostileStreams, call: Call, number: int) -> None:
    await call.write(chunk(1, streams.damaged()))


async def _changed_hello(streams: HostileStreams, call: Call, number: int) -> None:
    data = bytearray(streams.hello(number))
    for _ in range(3):
        data[int(streams.random.integers(2, len(data)))] = int(streams.random.integers(256))
    await call.write(bytes(data))
    await call.done_writing()


async def _unsafe_name(streams: HostileStreams, call: Call, number: int) -> None:
    await call.write(streams.hello(number, device_id="../../etc"))


async def _no_such_time(streams: HostileStreams, call: Call, number: int) -> None:
    """An epoch that begins when no calendar reaches, for whoever reads the results."""
    await call.write(streams.hello(number, epoch_start_unix_ms=2**63 - 1 - number))


async def _unknown_bundle(streams: HostileStreams, call: Call, number: int) -> None:
    await call.write(streams.hello(number, bundle_ids=("0" * 64,)))


async def _two_hellos(streams: HostileStreams, call: Call, number: int) -> None:
    await call.write(streams.hello(number))
    await call.write(streams.hello(number))


async def _seq_goes_back(streams: HostileStreams, call: Call, number: int) -> None:
    await call.write(streams.hello(number))
    await call.read()
    for seq in (5, 4, 0):
        await call.write(chunk(seq, streams.damaged()))


async def _damaged_chunks(streams: HostileStreams, call: Call, number: int) -> None:
    """Within the contract, for once: each is rejected, and the stream ends in peace."""
    await call.write(streams.hello(number))
    await call.read()
    for seq in (1, 2, 3):
        await call.write(chunk(seq, streams.damaged()))
    await call.done_writing()


async def _far_too_long(streams: HostileStreams, call: Call, number: int) -> None:
    await call.write(streams.hello(number))
    await call.read()
    await call.write(chunk(1, bytes(Limits().max_chunk_bytes + 1)))
    await call.done_writing()


async def _more_than_granted(streams: HostileStreams, call: Call, number: int) -> None:
    await call.write(streams.hello(number))
    for seq in range(1, FLOOD):
        await call.write(chunk(seq, b"x"))


async def _gone_in_the_middle(streams: HostileStreams, call: Call, number: int) -> None:
    await call.write(streams.hello(number))
    await call.write(chunk(1, streams.damaged()))
    call.cancel()


BEHAVIOURS: Final[tuple[Behaviour, ...]] = (
    *(_no_http, _no_protobuf, _nothing_in_it, _no_hello, _changed_hello, _unsafe_name),
    *(_no_such_time, _unknown_bundle, _two_hellos, _seq_goes_back, _damaged_chunks, _far_too_long),
    *(_more_than_granted, _gone_in_the_middle),
)
