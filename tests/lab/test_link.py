"""The line itself: what it must do to the packets of a real TCP."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.support.link import FAR, Link, Quality, linked
from tests.support.namespaces import Namespace, why_not

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

Line = tuple[Namespace, Namespace, Link]


@pytest.fixture
def line(request: pytest.FixtureRequest) -> Iterator[Line]:
    with linked(request.param) as made:
        yield made


def connected(line: Line) -> tuple[socket.socket, socket.socket]:
    """The two ends of a connection over the line."""
    near, far, _ = line
    with far.entered():
        listener = socket.create_server((FAR, 0))
    with near.entered():
        client = socket.create_connection(listener.getsockname(), timeout=60)
    server, _ = listener.accept()
    listener.close()
    return client, server


@pytest.mark.parametrize("line", [Quality(delay_s=0.05)], indirect=True)
def test_a_way_there_and_back_takes_the_delay_twice(line: Line) -> None:
    start_s = time.monotonic()
    client, server = connected(line)
    assert time.monotonic() - start_s >= 0.1
    client.close()
    server.close()


@pytest.mark.parametrize("line", [Quality(loss=0.1, bits_per_s=1_000_000)], indirect=True)
def test_a_lossy_and_narrow_line_delivers_everything_and_not_faster_than_its_rate(
    line: Line,
) -> None:
    client, server = connected(line)
    sent = bytes(range(256)) * 200
    writer = threading.Thread(target=client.sendall, args=(sent,))
    start_s = time.monotonic()
    writer.start()
    came = b""
    while len(came) < len(sent):
        came += server.recv(65536)
    assert came == sent
    assert time.monotonic() - start_s >= 8 * len(sent) / 1_000_000
    assert line[2].lost > 0
    writer.join()
    client.close()
    server.close()


@pytest.mark.parametrize("line", [Quality()], indirect=True)
def test_what_is_sent_while_the_line_is_cut_comes_when_it_is_whole(line: Line) -> None:
    client, server = connected(line)
    line[2].cut.set()
    client.sendall(b"still here")
    server.settimeout(0.3)
    with pytest.raises(TimeoutError):
        server.recv(64)
    line[2].cut.clear()
    server.settimeout(60)
    assert server.recv(64) == b"still here"
    client.close()
    server.close()
