"""One connection to NATS, which is not made again by itself when it is lost."""

import asyncio
import logging
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Final, TypeAlias

import nats.errors
from nats.aio.client import Client

from cloud_recognizer.hub.nats_access import NatsAccess

_CONNECT_S: Final = 2
_CLOSE_S: Final = 2.0
_CANCEL_S: Final = 0.2
_PING_S: Final = 5  # a peer that is gone without a word is noticed after three of them

Lost: TypeAlias = "asyncio.Future[None]"

_log = logging.getLogger(__name__)


class TlsClient(Client):
    """A client that says nothing of ours before TLS stands.

    nats-py takes a server at its word whether there is TLS: one that is asked for by tls://, and
    whose greeting does not offer it, would get password and results in plaintext.
    """

    def _connect_command(self) -> bytes:
        # The first line that it sends. By now nats-py has shaken hands, if it was offered.
        if not self._server_info.get("tls_required"):
            raise nats.errors.Error("NATS offers no TLS, and tls:// asks for it")
        return super()._connect_command()


@asynccontextmanager
async def connection(access: NatsAccess) -> AsyncIterator[tuple[Client, Lost]]:
    """A client, and a future that fails when its connection is lost.

    Certificates and login are read anew. Raises what nats-py and the network do when none of the
    servers answers, and ConfigError for files that cannot be used.
    """
    lost: Lost = asyncio.get_running_loop().create_future()

    async def on_closed() -> None:
        if not lost.done():
            lost.set_exception(nats.errors.ConnectionClosedError())

    async def on_error(error: Exception) -> None:
        _log.debug("NATS: %r", error)

    tls = access.read_tls()
    client = Client() if tls is None else TlsClient()
    await client.connect(
        list(access.servers),
        tls=tls,
        **access.read_login(),
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


async def ended(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancel tasks that use NATS, and wait until they are done, however they end.

    More than once: nats-py takes a cancellation that comes while it connects for a failure of the
    connection, and who tries again then goes on for ever.
    """
    running = set(tasks)
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=_CANCEL_S)
    await asyncio.gather(*tasks, return_exceptions=True)


async def _close(client: Client) -> None:
    try:
        async with asyncio.timeout(_CLOSE_S):
            await client.close()
    except Exception as error:  # it is gone, one way or the other
        _log.debug("while closing a connection to NATS: %r", error)
