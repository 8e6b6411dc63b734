"""What is remembered of a device's epoch between its streams."""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Protocol

from cloud_recognizer.metrics import SESSION_FORGOTTEN, Metrics
from mien.errors import OverloadedError
from mien.messages.upward import Hello


class Supersedable(Protocol):
    """A stream that can be told that a newer one has taken its place."""

    def supersede(self) -> None:
        """Settle nothing more, and end."""


@dataclass(slots=True)
class Session:
    """One (device, epoch). Every chunk up to and including `acknowledged_seq` is settled."""

    acknowledged_seq: int = 0
    stream: Supersedable | None = field(default=None, repr=False)


class Sessions:
    """The sessions of at most `capacity` device epochs, `max_streams` of them with a stream."""

    def __init__(self, metrics: Metrics, *, max_streams: int, capacity: int) -> None:
        self._metrics = metrics
        self._max_streams = max_streams
        self._capacity = capacity
        self._streams = 0
        self._sessions: OrderedDict[tuple[str, int], Session] = OrderedDict()

    @property
    def streams(self) -> int:
        """Device streams that are open."""
        return self._streams

    def enter(self, hello: Hello, stream: Supersedable) -> Session:
        """Give a stream its session; an older stream of the same device and epoch must end.

        When `capacity` is reached, the session longest without a stream is forgotten: should its
        device come back in the same epoch, unacknowledged chunks may be recognised twice.
        Raises OverloadedError beyond `max_streams`.
        """
        key = (hello.device_id, hello.epoch)
        session = self._sessions.get(key)
        if session is not None and session.stream is not None:
            session.stream.supersede()
            self.leave(session, session.stream)
        if self._streams >= self._max_streams:
            raise OverloadedError(f"{self._max_streams} devices are connected already")
        if session is None:
            session = self._sessions[key] = Session()
        self._sessions.move_to_end(key)
        session.stream = stream
        self._count(+1)
        self._forget()
        return session

    def leave(self, session: Session, stream: Supersedable) -> None:
        """Note that a stream has ended; one that was superseded has left already."""
        if session.stream is stream:
            session.stream = None
            self._count(-1)

    def _count(self, change: int) -> None:
        self._streams += change
        self._metrics.streams.set(self._streams)

    def _forget(self) -> None:
        if len(self._sessions) <= self._capacity:
            return
        for key, session in self._sessions.items():
            if session.stream is None:
                del self._sessions[key]
                self._metrics.dropped.labels(SESSION_FORGOTTEN).inc()
                return
