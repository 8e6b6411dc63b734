"""Ways to a server that a test can cut: without closing it, or closing it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


@asynccontextmanager
async def relay(address: str, frozen: asyncio.Event) -> AsyncIterator[str]:
    """A way to a server that, once frozen, swallows every byte and keeps the connection."""
    host, _, port = address.rpartition(":")

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if not frozen.is_set():
                writer.write(data)

    async def relayed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        try:
            await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
        finally:
            far_writer.close()
            writer.close()

    listener = await asyncio.start_server(relayed, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    finally:
        listener.close()


class Way:
    """A way to a server that a test can close, and open again at the same address."""

    def __init__(self, target: str) -> None:
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self._open: set[asyncio.StreamWriter] = set()
        self.address = "127.0.0.1:0"

    async def mend(self) -> None:
        """Let connections through, from now on."""
        host, _, port = self.address.rpartition(":")
        self._listener = await asyncio.start_server(self._relayed, host, int(port))
        self.address = f"{host}:{self._listener.sockets[0].getsockname()[1]}"

    def cut(self) -> None:
        """Close what is open, and refuse what comes."""
        self._listener.close()
        for writer in self._open:
            writer.transport.abort()

    async def _relayed(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(self._host, self._port)
        ends = {writer, far_writer}
        self._open |= ends
        try:
            await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        finally:
            self._open -= ends
            for end in ends:
                end.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
    writer.close()


@asynccontextmanager
async def way_to(target: str) -> AsyncIterator[Way]:
    """A way to a server ("host:port") that is open."""
    way = Way(target)
    await way.mend()
    try:
        yield way
    finally:
        way.cut()
