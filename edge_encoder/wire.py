"""Bytes on the wire: what TCP has carried upward for this process, HTTP/2 framing included.

The kernel counts the payload of every TCP segment, so nothing of gRPC is estimated. IP and TCP
headers are not in it. Linux only: elsewhere there is no figure, and none is made up.
"""

import contextlib
import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

from edge_encoder.servers import Endpoint

MEASURED_BY = "TCP_INFO of the connection to the server: bytes sent, HTTP/2 framing included"

# struct tcp_info (linux/tcp.h): where bytes_sent and bytes_retrans lie, of Linux 4.19 and later.
_BYTES_SENT = struct.Struct("=QQ")
_BYTES_SENT_OFFSET = 200
_TCP_INFO_BYTES = 256


class WireMeter:
    """Adds up what this process's connections to its servers have sent.

    Connections come and go: `sample` while they are open, before closing one and now and then.
    """

    def __init__(self) -> None:
        self._endpoints: frozenset[Endpoint] = frozenset()
        self._by_socket: dict[int, int] = {}

    @property
    def total_bytes(self) -> int | None:
        """Bytes sent so far by the latest sample; None where that cannot be known."""
        return sum(self._by_socket.values()) if self._by_socket else None

    def count(self, endpoints: Iterable[Endpoint]) -> None:
        """Count the connections to these, too; to be called before one is made."""
        self._endpoints |= {(_plain(host), port) for host, port in endpoints}

    def sample(self) -> int | None:
        """Read the counters of the connections that are open now; returns `total_bytes`."""
        for inode, descriptor in _sockets() if self._endpoints else ():
            sent = _bytes_sent(descriptor, self._endpoints)
            if sent is not None:
                self._by_socket[inode] = max(sent, self._by_socket.get(inode, 0))
        return self.total_bytes


def _sockets() -> list[tuple[int, int]]:
    """(inode, descriptor) of this process's sockets; Linux counts the inodes up."""
    found: list[tuple[int, int]] = []
    if not sys.platform.startswith("linux"):
        return found
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # closed by another thread meanwhile
            target = str(entry.readlink())
            if target.startswith("socket:["):
                found.append((int(target[8:-1]), int(entry.name)))
    return found


def _bytes_sent(descriptor: int, endpoints: frozenset[Endpoint]) -> int | None:
    """Payload bytes that a TCP socket has sent, each once; None if it is not to an endpoint."""
    try:
        with socket.socket(fileno=os.dup(descriptor)) as connection:
            if connection.family not in (socket.AF_INET, socket.AF_INET6):
                return None
            host, port, *_ = connection.getpeername()
            if (_plain(host), port) not in endpoints:
                return None
            info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    except OSError:
        return None
    if len(info) < _BYTES_SENT_OFFSET + _BYTES_SENT.size:
        return None
    sent, sent_again = _BYTES_SENT.unpack_from(info, _BYTES_SENT_OFFSET)
    return int(sent - sent_again)


def _plain(host: str) -> str:
    """An address in one spelling: gRPC connects to 127.0.0.1 as ::ffff:127.0.0.1."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)
