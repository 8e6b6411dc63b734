"""A WSGI server on threads of its own, bounded in how many connections it has, and for how long.

The standard library's starts a thread for each connection and waits for its request for ever: who
opens many and says nothing takes every thread there is, and health is not answered any more.
"""

import contextlib
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

_log = logging.getLogger(__name__)

MAX_CONNECTIONS: Final = 64
# From when it is accepted to the end of the answer: as long as a Prometheus waits by default, and
# less than it takes a kubelet to find a process dead.
TIMEOUT_S: Final = 10.0


class BoundedServer(ThreadingMixIn, WSGIServer):
    """Serves an application at an address; a connection is one request.

    on_full: called for each connection that is closed since there are too many.
    max_connections: at a time; one more is closed at once, for a queue would make health late.
    timeout_s: after it a connection is cut, whatever it does: one that sends a byte now and then
    would outlast any bound on silence. Raises OSError for an address that cannot be bound.
    """

    daemon_threads = True
    # Many that come at once are to be closed, not kept waiting.
    request_queue_size = MAX_CONNECTIONS

    def __init__(
        self,
        host: str,
        port: int,
        application: "WSGIApplication",
        *,
        on_full: Callable[[], None] = lambda: None,
        max_connections: int = MAX_CONNECTIONS,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family, *_, address = found[0]
        self._on_full, self._max_connections = on_full, max_connections
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        # Connection → when it is cut, on the monotonic clock; the first is the oldest.
        self._ends_s: dict[Any, float] = {}
        self._was_full = False
        super().__init__((str(address[0]), port), _QuietHandler)
        self.set_app(application)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer it on a thread, or close it where there are too many."""
        with self._lock:
            full = len(self._ends_s) >= self._max_connections
            if not full:
                self._ends_s[request] = time.monotonic() + self._timeout_s
        if full:
            self._say_full()
            self.shutdown_request(request)
        else:
            super().process_request(request, client_address)

    def _say_full(self) -> None:
        """In the log once, for whoever fills it could fill that too."""
        self._on_full()
        if not self._was_full:
            _log.warning(
                "%d connections to the metrics and health port are open: more are closed at once",
                self._max_connections,
            )
        self._was_full = True

    def service_actions(self) -> None:
        """Cut what is too old; called between requests, twice a second at least."""
        now_s = time.monotonic()
        with self._lock:
            for request, end_s in self._ends_s.items():
                if end_s > now_s:
                    break
                _cut(request)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection, and give its place back."""
        with self._lock:  # nothing is cut once it is closed: its number may be another's by then
            self._ends_s.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever has gone, or was cut, is no error; anything else is, in the log."""
        if not isinstance(sys.exception(), OSError):
            _log.error("a request to the metrics and health port failed", exc_info=True)


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its own name
        """Nothing: health is asked for each second."""


def _cut(request: socket.socket) -> None:
    """Its thread, which waits for it, finds that it has ended."""
    with contextlib.suppress(OSError):  # the other end was quicker
        request.shutdown(socket.SHUT_RDWR)
