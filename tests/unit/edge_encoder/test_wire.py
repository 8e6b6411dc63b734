"""Counting bytes on real connections."""

import socket
import sys

import pytest

from edge_encoder.servers import addresses_of
from edge_encoder.wire import WireMeter

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="TCP_INFO of Linux")


def connected() -> tuple[socket.socket, socket.socket, str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
        return ours, theirs, f"127.0.0.1:{listener.getsockname()[1]}"


def test_what_was_sent_is_counted_over_all_connections() -> None:
    first, far_end, server = connected()
    meter = WireMeter()
    meter.count(addresses_of(server))
    with first, far_end:
        first.sendall(b"x" * 1000)
        far_end.recv(2000)
        far_end.sendall(b"downward does not count")
        assert meter.sample() == 1000
        first.sendall(b"y" * 234)
        assert meter.sample() == 1234
    assert meter.sample() == 1234  # the connection is closed, its bytes stay


def test_connections_to_others_do_not_count() -> None:
    ours, far_end, _ = connected()
    elsewhere, other_end, server = connected()
    meter = WireMeter()
    meter.count(addresses_of(server))
    with ours, far_end, elsewhere, other_end:
        ours.sendall(b"x" * 50)
        assert meter.sample() == 0
    assert meter.total_bytes == 0


def test_without_a_connection_there_is_no_figure() -> None:
    meter = WireMeter()
    meter.count(addresses_of("127.0.0.1:1"))
    assert meter.sample() is None


@pytest.mark.parametrize("server", ["no-such-host.invalid:1", "unix:/tmp/x", "127.0.0.1:x"])
def test_a_server_that_cannot_be_looked_up_gives_no_figure(server: str) -> None:
    meter = WireMeter()
    meter.count(addresses_of(server))
    assert meter.sample() is None


def test_ipv6_and_ipv4_spellings_are_one() -> None:
    with socket.socket(socket.AF_INET6) as listener:
        try:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            listener.bind(("::", 0))
        except OSError:
            pytest.skip("no IPv6 here")
        listener.listen()
        port = listener.getsockname()[1]
        with socket.socket(socket.AF_INET6) as ours:
            ours.connect(("::ffff:127.0.0.1", port))
            ours.sendall(b"x" * 10)
            meter = WireMeter()
            meter.count([("127.0.0.1", port)])
            assert meter.sample() == 10
