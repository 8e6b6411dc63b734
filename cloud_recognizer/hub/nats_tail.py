"""Reading a JetStream stream from a position on, message by message, until something breaks.

An ephemeral pull consumer without acknowledgements: what is under way is bounded by the batch that
was asked for, and whoever breaks off begins again at the position it had reached.
"""

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext, api

from cloud_recognizer.hub.nats_stream import STREAM

BATCH: Final = 512  # messages under way
_EXPIRES_S: Final = 30.0  # after which JetStream ends a request that is not filled
_HEARTBEAT_S: Final = 5.0
_SILENCE_S: Final = 3 * _HEARTBEAT_S
_INACTIVE_S: Final = 60.0  # after which JetStream forgets a consumer that nobody asks
_HEARTBEAT: Final = "100"
# Statuses that say that a request is done, and that another one may follow.
_DONE: Final = ("404", "408")

_log = logging.getLogger(__name__)


class TailBrokenError(Exception):
    """The stream cannot be read on like this; begin again."""


class Tail:
    """Calls `receive` with every message after position `after`; what that raises ends it.

    idle: called now and then while there is nothing left to read.
    """

    def __init__(
        self,
        client: Client,
        context: JetStreamContext,
        receive: Callable[[Msg], None],
        idle: Callable[[], None],
        lost: "asyncio.Future[None]",
    ) -> None:
        self._client = client
        self._context = context
        self._receive = receive
        self._idle = idle
        self._ended = lost
        self._heard = False
        self._outstanding = 0

    async def run(self, after: int) -> None:
        """Read until the connection or the consumer is gone. Raises what ended it, always."""
        config = api.ConsumerConfig(
            deliver_policy=api.DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=after + 1,
            ack_policy=api.AckPolicy.NONE,
            inactive_threshold=_INACTIVE_S,
            mem_storage=True,
            num_replicas=1,
        )
        consumer = await self._context.add_consumer(STREAM, config)
        self._request = f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{consumer.name}"
        self._inbox = self._client.new_inbox()
        await self._client.subscribe(self._inbox, cb=self._on_message)
        await self._ask()
        while True:
            self._heard = False
            await asyncio.wait((self._ended,), timeout=_SILENCE_S)
            if self._ended.done():
                self._ended.result()
            if not self._heard:
                raise TailBrokenError(f"JetStream was silent for {_SILENCE_S:g} s")

    async def _ask(self) -> None:
        self._outstanding = BATCH
        request = {
            "batch": BATCH,
            "expires": int(_EXPIRES_S * 1e9),
            "idle_heartbeat": int(_HEARTBEAT_S * 1e9),
        }
        await self._client.publish(self._request, json.dumps(request).encode(), self._inbox)

    async def _on_message(self, message: Msg) -> None:
        self._heard = True
        try:
            status = (message.headers or {}).get("Status")
            if status is None:
                self._outstanding -= 1
                self._receive(message)
            if status in _DONE or self._outstanding == 0:
                await self._ask()
            elif status == _HEARTBEAT:
                self._idle()
            elif status is not None:
                description = (message.headers or {}).get("Description", "")
                raise TailBrokenError(f"JetStream says {status} {description}")  # noqa: TRY301
        except Exception as error:
            # nats-py would log it and go on with the next message.
            if not self._ended.done():
                self._ended.set_exception(error)
