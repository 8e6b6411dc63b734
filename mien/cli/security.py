"""How a command reaches a recognizer: TLS with a certificate or a token, or plaintext."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mien.errors import ConfigError
from mien.tls import TlsFiles, check_plaintext

if TYPE_CHECKING:
    import grpc


# gRPC's own first wait is a second and grows to two minutes: a recognizer that is back is heard
# within two seconds.
OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


@dataclass(frozen=True)
class Security:
    """How a command dials: TLS files, a file with a token, or plaintext beyond loopback."""

    tls: TlsFiles | None = None
    token: Path | None = None
    insecure: bool = False

    @property
    def bearer(self) -> str | None:
        """The token in the file, None where there is none. Raises ConfigError."""
        return _token(self.token) if self.token else None

    def channel(self, address: str) -> grpc.Channel:
        """A channel to HOST:PORT, not connected yet. Raises ConfigError."""
        import grpc

        if self.tls is None:
            if self.token is not None:
                raise ConfigError("a token is sent over TLS only: give --tls_ca")
            host = address.rpartition(":")[0]
            check_plaintext(host, insecure=self.insecure, remedy="give --tls_ca")
            return grpc.insecure_channel(address, OPTIONS)
        credentials = self.tls.read().channel_credentials()
        if (token := self.bearer) is not None:
            call = grpc.access_token_call_credentials(token)
            credentials = grpc.composite_channel_credentials(credentials, call)
        return grpc.secure_channel(address, credentials, OPTIONS)


PLAIN = Security()


def add_security(parser: argparse.ArgumentParser) -> None:
    """Let a command take the flags that `security_of` reads."""
    group = parser.add_argument_group("who speaks; only loopback is spoken to without TLS")
    group.add_argument("--tls_ca", type=Path, help="PEM file of the authorities to trust")
    group.add_argument("--tls_certificate", type=Path, help="PEM file of this client's certificate")
    group.add_argument("--tls_key", type=Path, help="PEM file of its key")
    group.add_argument("--token", type=Path, help="file with a token (JWT), for the token port")
    group.add_argument("--insecure", action="store_true", help="plaintext to wherever it goes")


def security_of(options: argparse.Namespace) -> Security:
    """What the flags ask for. Raises ConfigError where one is missing."""
    tls = TlsFiles.of(options.tls_ca, options.tls_certificate, options.tls_key)
    return Security(tls, options.token, options.insecure)


def _token(path: Path) -> str:
    try:
        token = path.read_text("ascii").strip()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} holds no token: {type(error).__name__}") from None
    if not token or any(character.isspace() for character in token):
        raise ConfigError(f"{path} must hold one token and nothing else")
    return token
