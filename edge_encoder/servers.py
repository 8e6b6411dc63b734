"""Which recognizer a device speaks to: an order of its own, one address after the other.

    --server a:1,b:2,c:3 ─ by a hash with the device's id ─▶ b:2, c:3, a:1
                         ─ looked up when their turn comes ─▶ b's addresses, c's, a's, b's …

The device keeps to the one that it is connected to; nothing leads it back to an earlier one. No
gRPC here: `connections` and `encoder_download` dial what a `Walk` says.
"""

import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

# Of the addresses of one name; beyond, a device tries those that its order has first.
MAX_ADDRESSES: Final = 16
# Where one of these is set, gRPC asks a proxy to connect, and names are the proxy's business.
PROXIES: Final = ("grpc_proxy", "https_proxy", "http_proxy")

# Host as getaddrinfo writes it, and port.
Endpoint = tuple[str, int]
LookUp = Callable[[str], Sequence[Endpoint]]


@dataclass(frozen=True)
class Target:
    """What to dial. position: that of its name in the configured list, from 1.

    name: as it is configured. dial: one of its addresses, or the name where there is none.
    endpoints: where the connection may lead to.
    """

    position: int
    name: str
    dial: str
    endpoints: tuple[Endpoint, ...]

    def __str__(self) -> str:
        return self.name if self.dial == self.name else f"{self.name} ({self.dial})"

    @property
    def options(self) -> tuple[tuple[str, str], ...]:
        """gRPC channel options: who routes by the name still sees it, not the address."""
        if self.dial == self.name:
            return ()
        return (("grpc.default_authority", _host_and_port(self.name)),)


class Servers:
    """The recognizers that a device may speak to.

    names: HOST:PORT each. look_up: the addresses of one; it may block, and is called on a thread.
    """

    def __init__(
        self, names: Sequence[str], device_id: str = "", look_up: LookUp | None = None
    ) -> None:
        self._names = tuple(names)
        self._device_id = device_id
        self._look_up = look_up or addresses_of
        self._order = order(self._names, device_id)
        self._begin: Target | None = None

    def __str__(self) -> str:
        return ", ".join(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def begin_at(self, target: Target) -> None:
        """This one answered: walks begin there from now on."""
        self._begin = target

    def walk(self) -> "Walk":
        """A way through the addresses; it begins at the one that answered last, if any did."""
        if self._begin is None:
            return Walk(self, 0)
        return Walk(self, self._order.index(self._begin.position - 1), self._begin.dial)

    async def targets(self, turn: int) -> list[Target]:
        """The addresses of the one whose turn it is; the name itself where there are none."""
        index = self._order[turn]
        name = self._names[index]
        found = await asyncio.to_thread(self._look_up, name)
        if not found or any(os.environ.get(proxy) for proxy in PROXIES):
            return [Target(index + 1, name, name, tuple(found))]
        ranked = _by_family(found, self._device_id)[:MAX_ADDRESSES]
        return [Target(index + 1, name, _dialled(address), (address,)) for address in ranked]


class Walk:
    """Goes through the addresses in rounds. A round without success is what is waited after."""

    def __init__(self, servers: Servers, turn: int, dial: str | None = None) -> None:
        self._servers = servers
        self._turn = turn
        self._dial = dial
        self._tried = False
        self._round_begins = True
        self._waiting: list[Target] = []
        self._turns_left = 0

    async def advance(self) -> tuple[Target, bool]:
        """The next address, and whether every one was tried in vain since the last success."""
        if self._round_begins:
            self._round_begins = False
            self._waiting = await self._of_this_turn()
            self._turns_left = len(self._servers) - 1
        is_over = not self._waiting and not self._turns_left
        if is_over:
            self._turns_left = len(self._servers)
        if not self._waiting:
            self._turn = (self._turn + 1) % len(self._servers)
            self._turns_left -= 1
            self._waiting = await self._servers.targets(self._turn)
        target = self._waiting.pop(0)
        self._dial, self._tried = target.dial, True
        return target, is_over

    def succeeded(self) -> None:
        """The latest address did what it is for. Should it fail, that begins another round."""
        self._round_begins = True

    async def _of_this_turn(self) -> list[Target]:
        """The addresses of the present name, as they are now; the present one first, if untried."""
        found = await self._servers.targets(self._turn)
        dials = [target.dial for target in found]
        if self._dial not in dials:
            return found
        present = dials.index(self._dial)
        rotated = found[present:] + found[:present]
        return rotated[1:] if self._tried else rotated


def order(names: Sequence[str], device_id: str) -> tuple[int, ...]:
    """Positions in `names`, from 0, in the order in which a device tries them.

    By SHA-256 of device and name (rendezvous hashing, Thaler and Ravishankar 1998): devices spread
    evenly, also when one server is gone, and who is added to the list moves only its own share.
    """
    return tuple(sorted(range(len(names)), key=lambda index: _rank(device_id, names[index])))


def _rank(device_id: str, name: str) -> bytes:
    return sha256(f"{device_id}\0{name}".encode()).digest()


def _by_family(found: Sequence[Endpoint], device_id: str) -> list[Endpoint]:
    """IPv6 and IPv4 as getaddrinfo has them (RFC 6724), within each by the device's own order."""
    families = list(dict.fromkeys(":" in host for host, _ in found))
    return sorted(
        found,
        key=lambda address: (
            families.index(":" in address[0]),
            _rank(device_id, _dialled(address)),
        ),
    )


def addresses_of(name: str) -> tuple[Endpoint, ...]:
    """The addresses of HOST:PORT, each once; none where it cannot be looked up. May block."""
    host, _, port = _host_and_port(name).rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except (OSError, ValueError):
        return ()
    return tuple(dict.fromkeys(_endpoint(address) for *_, address in found))


def _endpoint(address: tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]) -> Endpoint:
    host, port, *more = address
    scope = f"%{more[1]}" if len(more) > 1 and more[1] else ""
    return f"{host}{scope}", int(port)


def _host_and_port(name: str) -> str:
    return name.removeprefix("dns:").lstrip("/")


def _dialled(address: Endpoint) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
