"""HTTP/2 by hand (RFC 9113), for what no gRPC client does: half a message, and never reading."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

DATA, HEADERS, SETTINGS = 0, 1, 4
END_STREAM, END_HEADERS, ACK = 1, 4, 1
MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = 3, 4
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class RawConnection:
    """A connection in plaintext. settings: of its peer, once `settle` has returned."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._next_stream = 1
        self.settings: dict[int, int] = {}

    async def settle(self, *, initial_window: int = 65_535) -> None:
        """Exchange settings. initial_window: bytes that the peer may send on each stream."""
        self._writer.write(_PREFACE)
        await self.send(SETTINGS, 0, 0, struct.pack("!HI", INITIAL_WINDOW_SIZE, initial_window))
        while not self.settings:
            kind, flags, _, body = await self.frame()
            if kind == SETTINGS and not flags & ACK:
                self.settings = dict(struct.iter_unpack("!HI", body))
        await self.send(SETTINGS, ACK, 0, b"")

    async def call(self, path: str) -> int:
        """Begin a gRPC call with its headers; returns its stream."""
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        headers = (
            *((":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "here")),
            *(("content-type", "application/grpc"), ("te", "trailers")),
        )
        block = b"".join(b"\x00" + _text(name) + _text(value) for name, value in headers)
        await self.send(HEADERS, END_HEADERS, stream, block)
        return stream

    async def message(self, stream: int, data: bytes, declared: int | None = None) -> None:
        """Send a message, or what there is of one that declares more bytes."""
        size = len(data) if declared is None else declared
        flags = END_STREAM if size == len(data) else 0
        await self.send(DATA, flags, stream, struct.pack("!BI", 0, size) + data)

    async def send(self, kind: int, flags: int, stream: int, body: bytes) -> None:
        """Send one frame."""
        head = struct.pack("!IBI", len(body) << 8 | kind, flags, stream)
        self._writer.write(head + body)
        await self._writer.drain()

    async def frame(self) -> tuple[int, int, int, bytes]:
        """The next frame: kind, flags, stream, body."""
        head = await self._reader.readexactly(9)
        size_kind, flags, stream = struct.unpack("!IBI", head)
        return size_kind & 0xFF, flags, stream, await self._reader.readexactly(size_kind >> 8)


def _text(text: str) -> bytes:
    data = text.encode()
    assert len(data) < 127  # one byte of length, no Huffman code
    return bytes((len(data),)) + data


@asynccontextmanager
async def raw_connection(
    port: int, *, initial_window: int = 65_535
) -> AsyncIterator[RawConnection]:
    """A connection to loopback that is settled."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        connection = RawConnection(reader, writer)
        await connection.settle(initial_window=initial_window)
        yield connection
    finally:
        writer.close()
