"""Results on their way into JetStream, each until it is acknowledged.

publish ─▶ after the one before it, of the same epoch ─▶ in the window ─▶ tried until it is there
"""

import asyncio
import logging
import time
from collections.abc import Collection
from typing import Final

from nats.js import JetStreamContext
from nats.js.api import Header

from cloud_recognizer.hub.contract import Origin, published, watched
from cloud_recognizer.hub.high_water import HighWaterMarks
from cloud_recognizer.hub.nats_stream import message_id, subject
from cloud_recognizer.metrics import Metrics
from mien.backoff import Backoff
from mien.messages.results import ChunkResult

ACK_S: Final = 2.0  # after which a publish is tried again, under the same id

_log = logging.getLogger(__name__)


class NatsPublisher:
    """Publishes what `marks` do not have yet, while there is a connection.

    window: publishes that wait for JetStream at a time.
    """

    def __init__(self, metrics: Metrics, marks: HighWaterMarks, *, window: int) -> None:
        self._metrics = metrics
        self._marks = marks
        self._window = asyncio.Semaphore(window)
        self._connected = asyncio.Event()
        self._context: JetStreamContext | None = None
        self._latest: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._complaint = ""

    @property
    def tasks(self) -> Collection[asyncio.Task[None]]:
        """The last publish of each epoch that has one under way; the others wait before it."""
        return self._latest.values()

    def resume(self, context: JetStreamContext) -> None:
        """Publish over this connection: the marks are read as far as the stream went."""
        self._context = context
        self._connected.set()

    def pause(self) -> None:
        """Hold back what is not acknowledged: the connection is gone."""
        self._connected.clear()
        self._context = None

    def publish(self, origin: Origin, result: ChunkResult) -> "asyncio.Future[None]":
        """See Hub."""
        if not result.recognitions:
            return published()
        body = watched(origin, result).to_proto().SerializeToString()
        key = (origin.device_id, origin.epoch)
        task = asyncio.create_task(self._publish(self._latest.get(key), key, result.seq, body))
        self._latest[key] = task
        self._metrics.hub_unpublished.inc()
        task.add_done_callback(lambda done: self._forget(key, done))
        return task

    def _forget(self, key: tuple[str, int], done: "asyncio.Task[None]") -> None:
        self._metrics.hub_unpublished.dec()
        if self._latest.get(key) is done:
            del self._latest[key]

    async def _publish(
        self,
        previous: "asyncio.Task[None] | None",
        key: tuple[str, int],
        seq: int,
        body: bytes,
    ) -> None:
        # One at a time for each device, so that trying again never changes the order.
        if previous is not None:
            await asyncio.wait((previous,))
        started_s = time.monotonic()
        backoff = Backoff(first_s=0.05, longest_s=1.0)
        async with self._window:
            while not await self._try(*key, seq, body):
                self._metrics.hub_retries.inc()
                await asyncio.sleep(backoff.next_s())
        self._metrics.hub_publish_seconds.observe(time.monotonic() - started_s)

    async def _try(self, device_id: str, epoch: int, seq: int, body: bytes) -> bool:
        await self._connected.wait()
        context = self._context
        if context is None:
            return False
        if seq <= self._marks.of(device_id, epoch):
            return True
        try:
            # No Nats-Expected-Stream: headers go into MARKS, which would refuse that one.
            headers = {Header.MSG_ID.value: message_id(device_id, epoch, seq)}
            to = subject(device_id, epoch)
            await context.publish(to, body, timeout=ACK_S, headers=headers)
        except Exception as error:  # whatever nats-py meets in a connection that goes away
            # Said once, for it may be said of every result that waits.
            level = logging.DEBUG if str(error) == self._complaint else logging.WARNING
            self._complaint = str(error)
            _log.log(level, "a publish was not acknowledged, trying again: %s", error)
            return False
        return True
