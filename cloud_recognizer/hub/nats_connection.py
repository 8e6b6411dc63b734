"""One connection to NATS, which is not made again by itself when it is lost."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeAlias

import nats
import nats.errors
from nats.aio.client import Client

_CONNECT_S: Final = 2
_CLOSE_S: Final = 2.0
_PING_S: Final = 5  # a peer that is gone without a word is noticed after three of them

Lost: TypeAlias = "asyncio.Future[None]"

_log = logging.getLogger(__name__)


@asynccontextmanager
async def connection(
    servers: Sequence[str],
) -> AsyncIterator[tuple[Client, Lost]]:
    """A client, and a future that fails when its connection is lost.

    Raises what nats-py and the network do when none of the servers answers.
    """
    lost: Lost = asyncio.get_running_loop().create_future()

    async def on_closed() -> None:
        if not lost.done():
            lost.set_exception(nats.errors.ConnectionClosedError())

    async def on_error(error: Exception) -> None:
        _log.debug("NATS: %r", error)

    client = await nats.connect(
        list(servers),
        name="mien-cloud",
        allow_reconnect=False,
        max_reconnect_attempts=1,  # tries each server twice; 0 would never end
        reconnect_time_wait=0,
        connect_timeout=_CONNECT_S,
        ping_interval=_PING_S,
        closed_cb=on_closed,
        disconnected_cb=on_closed,
        error_cb=on_error,
    )
    try:
        yield client, lost
    finally:
        if not lost.cancel() and not lost.cancelled():
            lost.exception()  # looked at, whether or not somebody waited for it
        await _close(client)


async def _close(client: Client) -> None:
    try:
        async with asyncio.timeout(_CLOSE_S):
            await client.close()
    except Exception as error:  # it is gone, one way or the other
        _log.debug("while closing a connection to NATS: %r", error)
