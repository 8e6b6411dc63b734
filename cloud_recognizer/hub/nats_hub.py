"""The hub of several recognizers: one JetStream stream that all publish to and all read.

publish → NatsPublisher → JetStream acknowledges → settled
               ▲
        HighWaterMarks ◀─ JetStream → Tail → Fanout → Subscription

Every recognizer reads all results, its own included, in the stream's order: a watcher may go to
any of them, and a token's sequence is the stream's. So each knows what the others have published,
and publishes nothing before it has read what was there when it connected. Trouble of any kind has
one way out: the connection is closed, and made again.
"""

import asyncio
import logging
from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Final, Self

from google.protobuf.message import DecodeError
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from cloud_recognizer.hub.contract import Origin
from cloud_recognizer.hub.fanout import Fanout
from cloud_recognizer.hub.high_water import HighWaterMarks
from cloud_recognizer.hub.message_age import MessageAge
from cloud_recognizer.hub.nats_access import NatsAccess
from cloud_recognizer.hub.nats_connection import connection, ended
from cloud_recognizer.hub.nats_marks import message_ids
from cloud_recognizer.hub.nats_publisher import NatsPublisher
from cloud_recognizer.hub.nats_stream import (
    MARKS,
    STREAM,
    StreamPlace,
    StreamSettings,
    ensure_stream,
    parse_message_id,
)
from cloud_recognizer.hub.nats_tail import Tail
from cloud_recognizer.hub.subscription import Subscription
from cloud_recognizer.metrics import HUB_MALFORMED, Metrics
from mien.backoff import Backoff
from mien.errors import ConfigError, ResumeLostError, UnavailableError
from mien.messages.results import ChunkResult
from mien.messages.watched import WatchedChunk
from mien.v1.recognition_pb2 import WatchRecognitionsResponse

_API_S: Final = 5.0

_log = logging.getLogger(__name__)


class NatsHub:
    """See Hub. Seen once: what this hub has read in the stream is never published again.

    What it has not read yet, because another recognizer published it this moment, JetStream drops
    within its duplicate window.

    window: publishes that wait for JetStream at a time; beyond, results wait for their turn, and
    with them the credits of their devices.
    start_s: how long JetStream may take to be there and to hand over what it holds.
    """

    def __init__(
        self,
        fanout: Fanout,
        metrics: Metrics,
        access: NatsAccess,
        settings: StreamSettings,
        *,
        window: int,
        start_s: float,
    ) -> None:
        self._fanout = fanout
        self._metrics = metrics
        self._access = access
        self._settings = settings
        self._start_s = start_s
        self._marks = HighWaterMarks(settings.max_chunks)
        self._publisher = NatsPublisher(metrics, self._marks, window=window)
        self._context: JetStreamContext | None = None
        self._caught_up_at = 0
        self._age = MessageAge()
        self._last_error: Exception | None = None

    async def __aenter__(self) -> Self:
        """Connect, and read what the stream holds.

        Raises UnavailableError after `start_s`, ConfigError for a stream that JetStream refuses.
        """
        self._ready = asyncio.get_running_loop().create_future()
        self._running = asyncio.create_task(self._run())
        waiting = (self._ready, self._running)
        await asyncio.wait(waiting, timeout=self._start_s, return_when=asyncio.FIRST_COMPLETED)
        if self._ready.done():
            return self
        refused = self._running.exception() if self._running.done() else None
        await self.__aexit__(None, None, None)
        if refused is not None:
            raise refused
        raise UnavailableError(
            f"no JetStream answers at --nats within {self._start_s:g} s: {self._last_error}"
        )

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
        await ended([self._running, *self._publisher.tasks])

    def publish(self, origin: Origin, result: ChunkResult) -> "asyncio.Future[None]":
        """See Hub. Unbounded by itself: a stream has no more results than it has credits."""
        return self._publisher.publish(origin, result)

    def published_seq(self, device_id: str, epoch: int) -> int:
        """See Hub: as far as the stream was read, so it needs no NATS."""
        return self._marks.of(device_id, epoch)

    def subscription(
        self, device_ids: Collection[str], track_ids: Collection[int], resume_token: bytes = b""
    ) -> AbstractAsyncContextManager[Subscription]:
        """See Hub."""
        return self._fanout.subscription(device_ids, track_ids, resume_token)

    def on_published(self, callback: Callable[[WatchedChunk, float], None]) -> None:
        """See Hub."""
        self._fanout.on_append(callback)

    def close(self) -> None:
        """See Hub."""
        self._fanout.close()

    async def _run(self) -> None:
        """Keep a connection for as long as the hub lasts."""
        backoff = Backoff(first_s=0.1, longest_s=2.0)
        while True:
            try:
                await self._hold_connection(backoff)
            except Exception as error:
                if isinstance(error, ConfigError) and not self._ready.done():
                    raise
                self._last_error = error
                _log.warning("not connected to JetStream, trying again: %s", error)
            await asyncio.sleep(backoff.next_s())

    async def _hold_connection(self, backoff: Backoff) -> None:
        async with connection(self._access) as (client, lost):
            context = client.jetstream(timeout=_API_S)
            place = await ensure_stream(context, self._settings)
            if not self._goes_on(place):
                self._begin(place.run, place.first - 1)
                await self._read_marks(context)
            self._caught_up_at = place.last
            self._age = MessageAge()
            self._context = context
            self._metrics.hub_connected.set(1)
            backoff.reset()
            self._note_caught_up()
            try:
                tail = Tail(client, context, self._receive, self._note_idle, lost)
                await tail.run(self._fanout.last)
            finally:
                self._publisher.pause()
                self._context = None
                self._metrics.hub_connected.set(0)

    def _goes_on(self, place: StreamPlace) -> bool:
        """Whether this recognizer can read on where it was; if not, it has to begin anew."""
        there = place.first - 1 <= self._fanout.last <= place.last
        return self._fanout.run == place.run and there

    async def _read_marks(self, context: JetStreamContext) -> None:
        """Learn what was published and has left the stream, or was never read here."""
        async for known_as in message_ids(context, since_us=self._fanout.run):
            try:
                self._marks.note(*parse_message_id(known_as))
            except ValueError:
                _log.warning("a message of %s is none of ours", MARKS)
                self._metrics.dropped.labels(HUB_MALFORMED).inc()

    def _begin(self, run: int, floor: int) -> None:
        error = ResumeLostError(
            "results were lost on the way to this server, or may have been: its NATS stream began "
            "anew or holds them no more; watch again without a token"
        )
        if run != self._fanout.run:
            # Lost with the stream to those who had not read it, so what is sent again is published.
            self._marks.clear()
        self._fanout.begin(run, floor, error)

    def _note_caught_up(self) -> None:
        if self._context is None or self._fanout.last < self._caught_up_at:
            return
        self._publisher.resume(self._context)
        if not self._ready.done():
            self._ready.set_result(None)

    def _note_idle(self) -> None:
        # What was there when we looked may have left the stream before we could read it.
        self._caught_up_at = min(self._caught_up_at, self._fanout.last)
        self._note_caught_up()

    def _receive(self, message: Msg) -> None:
        metadata = message.metadata
        sequence = metadata.sequence.stream
        if sequence != self._fanout.last + 1:
            self._begin(self._fanout.run, sequence - 1)
        try:
            chunk = WatchedChunk.from_proto(WatchRecognitionsResponse.FromString(message.data))
        except DecodeError:
            _log.warning("message %d of %s is none of ours", sequence, STREAM)
            self._metrics.dropped.labels(HUB_MALFORMED).inc()
            self._fanout.last = sequence
        else:
            age_s = self._age.of(metadata.timestamp, fresh=sequence > self._caught_up_at)
            self._fanout.append(sequence, chunk, message.data, age_s)
            self._marks.note(chunk.device_id, chunk.epoch, chunk.seq)
        self._note_caught_up()
