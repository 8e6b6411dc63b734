"""The page's socket: so many connections, and so much on its way to a browser that is slow."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, cast

from aiohttp import web

from cloud_recognizer.live_page.address import PageAddress
from cloud_recognizer.metrics import CONNECTIONS
from mien.errors import ConfigError

# A browser opens six at a time.
MAX_CONNECTIONS: Final = 64
# What the kernel holds of one connection, so that what a slow browser reads at last is not old.
SEND_BUFFER_BYTES: Final = 64 << 10


class _Refusing(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


@asynccontextmanager
async def listening(
    runner: web.AppRunner, address: PageAddress, refuse: Callable[[str], None]
) -> AsyncIterator[int]:
    """Accept connections for a runner that is set up; yields the port.

    Raises ConfigError where the address cannot be bound.
    """
    server = cast("web.Server", runner.server)  # there is one once it is set up

    def protocol() -> asyncio.BaseProtocol:
        if len(server.connections) >= MAX_CONNECTIONS:
            refuse(CONNECTIONS)
            return _Refusing()
        return server()

    try:
        bound = socket.create_server(
            (address.host, address.port),
            family=socket.AF_INET6 if ":" in address.host else socket.AF_INET,
        )
    except OSError as error:
        raise ConfigError(
            f"live_page: {address.host}:{address.port} cannot be bound: {error}"
        ) from error
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    listener = await asyncio.get_running_loop().create_server(protocol, sock=bound)
    try:
        yield int(bound.getsockname()[1])
    finally:
        listener.close()
