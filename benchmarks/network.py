"""Two network namespaces and the cable between them, on which every byte can be counted.

This process moves into a namespace of its own, a child into another; both end with the processes.
Needs Linux, iproute2 and the right to make namespaces (root). The cable is a pair of veth
interfaces of the usual 1,500 bytes, and one packet is one segment: none is put together on the way.
"""

import ctypes
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

_CLONE_NEWNET = 0x40000000  # linux/sched.h
_ETHERNET_BYTES = 14
DEVICE, SERVER = "device0", "server0"
DEVICE_ADDRESS, SERVER_ADDRESS = "10.77.0.1", "10.77.0.2"


@dataclass(frozen=True)
class Traffic:
    """What went over the cable as the device sees it: bytes of IP packets, and packets."""

    up_bytes: int
    up_packets: int
    down_bytes: int
    down_packets: int

    def __sub__(self, earlier: "Traffic") -> "Traffic":
        return Traffic(
            self.up_bytes - earlier.up_bytes,
            self.up_packets - earlier.up_packets,
            self.down_bytes - earlier.down_bytes,
            self.down_packets - earlier.down_packets,
        )


def leave_for_own_network() -> None:
    """Move this process to a namespace with nothing but a loopback.

    To be called before there are threads that use the network. Raises SystemExit where that is
    not possible, saying why.
    """
    if not sys.platform.startswith("linux"):
        raise SystemExit("bytes on an interface are counted in a network namespace: Linux only")
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise SystemExit(f"no network namespace can be made ({reason}): run it as root")
    for name in ("all", "default"):  # no neighbour discovery between the packets
        Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1")
    _ip("link set lo up")


def lay_cable(server_pid: int) -> None:
    """From here to the namespace of another process, which then calls `take_end`."""
    _ip(f"link add {DEVICE} type veth peer name {SERVER} netns {server_pid}")
    _raise_end(DEVICE, DEVICE_ADDRESS)


def take_end(patience_s: float) -> None:
    """Use the server's end of the cable, as soon as it is there."""
    end_s = time.monotonic() + patience_s
    while SERVER not in _counters():
        if time.monotonic() > end_s:
            raise SystemExit(f"no cable came within {patience_s:g} s")
        time.sleep(0.02)  # the other process makes it; nothing can be waited on
    _raise_end(SERVER, SERVER_ADDRESS)


def traffic() -> Traffic:
    """Since the cable was laid; frames' Ethernet headers are taken off."""
    down_bytes, down_packets, *others = _counters()[DEVICE]
    up_bytes, up_packets = others[6], others[7]
    return Traffic(
        up_bytes - _ETHERNET_BYTES * up_packets,
        up_packets,
        down_bytes - _ETHERNET_BYTES * down_packets,
        down_packets,
    )


def _counters() -> dict[str, list[int]]:
    """Of each interface of this process's namespace: proc(5), /proc/net/dev."""
    lines = Path("/proc/net/dev").read_text().splitlines()[2:]
    named = (line.partition(":") for line in lines)
    return {name.strip(): [int(value) for value in values.split()] for name, _, values in named}


def _raise_end(name: str, address: str) -> None:
    _ip(f"addr add {address}/24 dev {name}")
    _ip(f"link set {name} gso_max_segs 1 up")


def _ip(command: str) -> None:
    try:
        subprocess.run(["ip", *command.split()], check=True, capture_output=True, text=True)  # noqa: S603, S607
    except FileNotFoundError:
        raise SystemExit("the command ip is missing: install iproute2") from None
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"ip {command}: {error.stderr.strip()}") from None
