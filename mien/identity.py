"""Who speaks: a role and a name, as certificates and tokens say them.

A certificate says it in one URI subject alternative name, spiffe://mien/ROLE/NAME (SPIFFE ID and
X.509-SVID standards): unlike a DNS name it cannot be mistaken for a host, and it holds the role.
"""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final, Self

TRUST_DOMAIN: Final = "mien"
_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Role(Enum):
    """What a client is to the recognizer."""

    DEVICE = "device"
    CONSUMER = "consumer"
    OPERATOR = "operator"


@dataclass(frozen=True)
class Identity:
    """One client. name: of a device its id; letters, digits, '.', '_', '-', at most 64."""

    role: Role
    name: str

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or set(self.name) <= {"."}:
            raise ValueError("a name has 1 to 64 letters, digits, '.', '_' or '-'")

    @property
    def uri(self) -> str:
        """The URI that stands in its certificate."""
        return f"spiffe://{TRUST_DOMAIN}/{self.role.value}/{self.name}"

    @classmethod
    def from_uri(cls, uri: str) -> Self:
        """Read such a URI. Raises ValueError for any other."""
        scheme, _, rest = uri.partition("://")
        domain, *path = rest.split("/")
        if scheme != "spiffe" or domain != TRUST_DOMAIN or len(path) != 2:
            raise ValueError(f"expected spiffe://{TRUST_DOMAIN}/ROLE/NAME")
        return cls(Role(path[0]), path[1])
