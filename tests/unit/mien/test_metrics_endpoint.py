"""The port of metrics and health, beside clients that say nothing and take what there is of it."""

import logging
import select
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from urllib.error import URLError

import pytest
from prometheus_client import CollectorRegistry, Counter

from mien.errors import ConfigError
from mien.metrics_endpoint import metrics_endpoint

# Long, for what happens is waited for; and for what must not happen there is no other end.
PATIENCE_S = 60.0
NEVER_S = 3600.0
MOST = 4
ASKED = b"GET /readyz HTTP/1.0\r\n\r\n"


@contextmanager
def served(timeout_s: float, on_full: Callable[[], None] = lambda: None) -> Iterator[int]:
    """The port of a service that is well, and takes MOST connections."""
    registry = CollectorRegistry()
    Counter("asked", "What there is to scrape.", registry=registry)
    with metrics_endpoint(
        *(registry, "127.0.0.1", 0, {"/readyz": lambda: True}),
        on_full=on_full,
        max_connections=MOST,
        timeout_s=timeout_s,
    ) as port:
        assert port is not None
        yield port


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)


@contextmanager
def idle(port: int, count: int) -> Iterator[list[socket.socket]]:
    """Connections that say nothing, in the order in which they are accepted."""
    with ExitStack() as stack:
        yield [stack.enter_context(connected(port)) for _ in range(count)]


def answer(connection: socket.socket) -> bytes:
    """The first line of what comes until the other end closes, which gives its place back before
    it does; nothing where it was cut."""
    try:
        with connection.makefile("rb") as stream:
            return next(iter(stream.readlines()), b"")
    except ConnectionResetError:
        return b""


def get(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE_S) as found:
        return str(found.read().decode())


def get_when_there_is_room(port: int, path: str) -> str:
    """A connection that is cut has ended for its client a moment before its thread gives its place
    back: until then one more is closed at once."""
    end_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            return get(port, path)
        except (ConnectionError, URLError):
            if time.monotonic() > end_s:
                raise
            time.sleep(0.01)  # threads are to run meanwhile


def test_idle_connections_keep_health_from_answering_no_longer_than_their_time() -> None:
    with served(timeout_s=1.0) as port, idle(port, 3 * MOST) as held:
        assert [answer(each) for each in held] == [b""] * (3 * MOST)
        assert get_when_there_is_room(port, "/readyz") == "ok\n"
        assert "asked_total 0.0" in get_when_there_is_room(port, "/metrics")


def test_a_connection_beyond_the_bound_is_closed_at_once_and_those_before_it_are_answered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    turned_away: list[None] = []
    with served(NEVER_S, lambda: turned_away.append(None)) as port, idle(port, MOST + 2) as held:
        assert [answer(each) for each in held[MOST:]] == [b"", b""]
        for each in held[:MOST]:
            each.sendall(ASKED)
            assert answer(each) == b"HTTP/1.0 200 OK\r\n"
        assert get(port, "/readyz") == "ok\n", "their places are free again"
    assert len(turned_away) == 2
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_request_that_comes_byte_by_byte_is_cut_though_it_is_never_silent() -> None:
    with served(timeout_s=1.0) as port, connected(port) as slow:
        slow.sendall(b"GET /readyz HTTP/1.0\r\nX-Slow: ")
        with suppress(ConnectionError):  # cut between a look and a byte
            for _ in range(3000):
                if select.select([slow], [], [], 0.02)[0]:
                    break
                slow.sendall(b"x")
        assert answer(slow) == b""
        assert get(port, "/readyz") == "ok\n"


def test_a_port_that_is_taken_is_a_wrong_setting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(ConfigError, match=f"metrics_port {port} .* cannot be bound"),
            metrics_endpoint(CollectorRegistry(), "127.0.0.1", port),
        ):
            pass


def test_without_a_port_nothing_is_served() -> None:
    with metrics_endpoint(CollectorRegistry(), "127.0.0.1", None) as port:
        assert port is None
