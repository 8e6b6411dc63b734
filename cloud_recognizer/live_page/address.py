"""Where the page is served, and by which names it may be asked for."""

import ipaddress
from collections.abc import Collection
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from mien.errors import ConfigError


@dataclass(frozen=True)
class PageAddress:
    """Host, without the brackets of IPv6, and port; 0 lets the system choose."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """From HOST:PORT or [ADDRESS]:PORT. Raises ConfigError."""
        host, port = _split(text)
        if not host or port is None:
            raise ConfigError(
                f"live_page must be HOST:PORT, for instance 127.0.0.1:8080, got {text[:80]!r}"
            )
        return cls(host, port)

    def check(self, *, insecure: bool) -> None:
        """Raise ConfigError for plain HTTP beyond loopback that nobody has insisted upon."""
        if not insecure and not is_loopback(self.host):
            raise ConfigError(
                f"live_page is plain HTTP without a login, and {self.host} is not this machine's "
                "loopback: serve it there behind a proxy that has both, or insist with "
                "live_page_insecure"
            )

    def url(self, port: int) -> str:
        """Where it is served once its port is known."""
        return (
            f"http://[{self.host}]:{port}/" if ":" in self.host else f"http://{self.host}:{port}/"
        )


def is_loopback(host: str) -> bool:
    """Whether a host, as a setting has it, is this machine; nothing is looked up."""
    address = _address(host)
    return host == "localhost" if address is None else address.is_loopback


def may_be_asked_for(host_header: str, names: Collection[str]) -> bool:
    """Whether a request's Host is an address, localhost or one of `names`.

    Any other site's name can be made to point here, and its pages could then read this one (DNS
    rebinding).
    """
    host, _ = _split(host_header)
    return bool(host) and (host in ("localhost", *names) or _address(host) is not None)


def is_page_of(origin_header: str, host_header: str, names: Collection[str]) -> bool:
    """Whether the page that asks, by its Origin, is the one that is asked for.

    Host and port must be those of Host. A proxy may have changed them: so `names` will do, at any
    port, for who names a host vouches for what is served there.
    """
    scheme, _, where = origin_header.partition("://")
    host, _ = _split(where)
    if scheme not in ("http", "https") or not host:  # "null", of a page that hides where it is from
        return False
    return where.lower() == host_header.lower() or host in names


def _split(text: str) -> tuple[str, int | None]:
    """Host and port; ("", None) for what is neither."""
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "", None
    return (host, port) if parts.netloc == text and "@" not in text else ("", None)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
