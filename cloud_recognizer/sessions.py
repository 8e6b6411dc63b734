"""What is remembered of a device's epoch between its streams, and which streams have a place.

A device has a few streams at a time: a live one, one for what waited on its disk, and perhaps one
that is dead without a word. Its newest epoch is the live one, its others are late. When there is no
place left, a late stream gives way to a live one, of whichever device: what it carries can wait.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Protocol

from cloud_recognizer.metrics import (
    DEVICE_STREAMS,
    GAVE_WAY,
    SESSION_FORGOTTEN,
    STREAMS,
    Metrics,
)
from mien.errors import MienError, OverloadedError, ShareTakenError, SupersededError
from mien.messages.upward import Hello


class Endable(Protocol):
    """A stream that can be told that it has lost its place."""

    def end(self, error: MienError) -> None:
        """Settle nothing more, and end with this error."""


@dataclass(slots=True)
class Session:
    """One (device, epoch). Every chunk up to and including `acknowledged_seq` is settled."""

    device_id: str
    epoch: int
    acknowledged_seq: int = 0
    stream: Endable | None = field(default=None, repr=False)


class Sessions:
    """The sessions of at most `capacity` device epochs, `max_streams` of them with a stream.

    max_device_streams: of one device, whatever its epochs.
    """

    def __init__(
        self, metrics: Metrics, *, max_streams: int, max_device_streams: int, capacity: int
    ) -> None:
        self._metrics = metrics
        self._max_streams = max_streams
        self._max_device_streams = max_device_streams
        self._capacity = capacity
        self._streams = 0
        self._sessions: OrderedDict[tuple[str, int], Session] = OrderedDict()
        # Those with a stream: device → epoch → session.
        self._open: dict[str, dict[int, Session]] = {}
        # Devices with a late stream; who has had one for longest comes first.
        self._late: dict[str, None] = {}

    @property
    def streams(self) -> int:
        """Device streams that are open."""
        return self._streams

    def enter(self, hello: Hello, stream: Endable) -> Session:
        """Give a stream its session; an older stream of the same device and epoch must end.

        When `capacity` is reached, the session longest without a stream is forgotten: should its
        device come back in the same epoch, unacknowledged chunks may be recognised twice.
        Raises ShareTakenError beyond `max_device_streams` and OverloadedError beyond `max_streams`,
        unless a late stream can give way to this one.
        """
        key = (hello.device_id, hello.epoch)
        session = self._sessions.get(key)
        if session is not None and session.stream is not None:
            self._end(
                session,
                SupersededError(
                    "a newer stream of the same device and epoch has taken over; "
                    "do two devices share an id?"
                ),
            )
        self._make_room(hello)
        if session is None:
            session = self._sessions[key] = Session(*key)
        self._sessions.move_to_end(key)
        session.stream = stream
        self._open.setdefault(hello.device_id, {})[hello.epoch] = session
        self._note(hello.device_id, +1)
        self._forget()
        return session

    def leave(self, session: Session, stream: Endable) -> None:
        """Note that a stream has ended; one that was ended from here has left already."""
        if session.stream is stream:
            session.stream = None
            del self._open[session.device_id][session.epoch]
            self._note(session.device_id, -1)

    def _make_room(self, hello: Hello) -> None:
        epochs = self._open.get(hello.device_id, {})
        if len(epochs) >= self._max_device_streams:
            self._metrics.turned_away.labels(DEVICE_STREAMS).inc()
            raise ShareTakenError(
                f"this device has {self._max_device_streams} streams open already; "
                "end one, or do two devices share an id?"
            )
        if self._streams < self._max_streams:
            return
        giver = self._giver(hello)
        if giver is None:
            self._metrics.turned_away.labels(STREAMS).inc()
            raise OverloadedError(f"{self._max_streams} devices are connected already")
        self._metrics.turned_away.labels(GAVE_WAY).inc()
        oldest = self._open[giver][min(self._open[giver])]
        self._end(oldest, OverloadedError("this place is needed for what is live; come again"))

    def _giver(self, hello: Hello) -> str | None:
        """The device of a late stream that gives way to this one; None: no other is there."""
        epochs = self._open.get(hello.device_id, {})
        if any(epoch > hello.epoch for epoch in epochs):
            return None  # it is late itself
        if epochs:
            return hello.device_id  # what it has open is late once this one is there
        return next(iter(self._late), None)

    def _end(self, session: Session, error: MienError) -> None:
        if session.stream is not None:
            session.stream.end(error)
            self.leave(session, session.stream)

    def _note(self, device_id: str, change: int) -> None:
        self._streams += change
        self._metrics.streams.set(self._streams)
        if len(self._open[device_id]) > 1:
            self._late.setdefault(device_id)
        else:
            self._late.pop(device_id, None)
        if not self._open[device_id]:
            del self._open[device_id]

    def _forget(self) -> None:
        if len(self._sessions) <= self._capacity:
            return
        for key, session in self._sessions.items():
            if session.stream is None:
                del self._sessions[key]
                self._metrics.dropped.labels(SESSION_FORGOTTEN).inc()
                return
