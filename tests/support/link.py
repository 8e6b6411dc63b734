"""A line between two networks, with delay, loss, a rate, a queue, and a plug that can be pulled.

    near ─ TUN ─▶ loss ─▶ queue (bounded, at the rate) ─▶ delay ─▶ TUN ─ far     and the same back

In user space, for `tc netem` is not in every kernel. Packets are IP's, so TCP is the real one.
"""

import fcntl
import heapq
import os
import random
import select
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.support.namespaces import Namespace

NEAR, FAR = "10.98.0.1", "10.98.0.2"
_TUNSETIFF, _IFF_TUN_NO_PI = 0x400454CA, 0x1001  # linux/if_tun.h
_PACKET_BYTES = 2048
_LOOK_S = 0.1


@dataclass(frozen=True)
class Quality:
    """Of each direction. delay_s: one way. loss: 0..1. bits_per_s: 0 for no bound.

    queue_s: what waits longer than this for its turn is dropped at the tail.
    """

    delay_s: float = 0.0
    loss: float = 0.0
    bits_per_s: float = 0.0
    queue_s: float = 0.5


class Link:
    """Carries packets until it is closed. lost: packets that loss and queue have taken."""

    def __init__(self, near: Namespace, far: Namespace, quality: Quality, seed: int = 0) -> None:
        self.cut = threading.Event()
        self.carried = self.lost = 0
        self._quality = quality
        self._random = random.Random(seed)  # noqa: S311  # repeatable, not secret
        self._near, self._far = _tun(near, NEAR), _tun(far, FAR)
        self._free_s = {self._near: 0.0, self._far: 0.0}
        self._on_their_way: list[tuple[float, int, int, bytes]] = []
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="link")
        self._thread.start()

    def change(self, quality: Quality) -> None:
        """Another quality from the next packet on; those on their way keep theirs."""
        self._quality = quality

    def close(self) -> None:
        self._closed.set()
        self._thread.join()
        os.close(self._near)
        os.close(self._far)

    def _run(self) -> None:
        ends = [self._near, self._far]
        while not self._closed.is_set():
            waits_s = self._on_their_way[0][0] - time.monotonic() if self._on_their_way else _LOOK_S
            for end in select.select(ends, [], [], min(max(waits_s, 0), _LOOK_S))[0]:
                other = self._far if end == self._near else self._near
                self._accept(end, other, os.read(end, _PACKET_BYTES))
            self._deliver()

    def _accept(self, end: int, other: int, packet: bytes) -> None:
        quality, now_s = self._quality, time.monotonic()
        starts_s = max(now_s, self._free_s[end])
        unlucky = self._random.random() < quality.loss
        if self.cut.is_set() or unlucky or starts_s - now_s > quality.queue_s:
            self.lost += 1
            return
        if quality.bits_per_s:
            self._free_s[end] = starts_s + 8 * len(packet) / quality.bits_per_s
        arrives_s = max(starts_s, self._free_s[end]) + quality.delay_s
        self.carried += 1
        heapq.heappush(self._on_their_way, (arrives_s, self.carried, other, packet))

    def _deliver(self) -> None:
        while self._on_their_way and self._on_their_way[0][0] <= time.monotonic():
            *_, other, packet = heapq.heappop(self._on_their_way)
            if self.cut.is_set():
                self.lost += 1
            else:
                os.write(other, packet)


def _tun(namespace: Namespace, address: str) -> int:
    with namespace.entered():
        tun = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH", b"line", _IFF_TUN_NO_PI))
    namespace.run("ip", "addr", "add", f"{address}/24", "dev", "line")
    namespace.run("ip", "link", "set", "line", "up", "mtu", "1500")
    return tun


@contextmanager
def linked(quality: Quality) -> Iterator[tuple[Namespace, Namespace, Link]]:
    """Two networks, near and far, and the line between; raises OSError as `Namespace`."""
    near, far = Namespace(), Namespace()
    link = Link(near, far, quality)
    try:
        yield near, far, link
    finally:
        link.close()
        near.close()
        far.close()
