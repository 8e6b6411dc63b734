"""The development authority in a test's hands, and clients that it has issued certificates to."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import jwt
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from mien.cli.certificates import DevelopmentCa
from mien.identity import Identity, Role
from mien.tls import TlsFiles
from tests.support.recognizer import Running, running_recognizer

HOUR = timedelta(hours=1)
LOOPBACK = ("127.0.0.1", "localhost")


@dataclass(frozen=True)
class Authority:
    """A development authority in a folder."""

    folder: Path
    ca: DevelopmentCa

    @classmethod
    def made(cls, folder: Path) -> "Authority":
        return cls(folder, DevelopmentCa.make(folder))

    def server(
        self, name: str = "here", valid: timedelta = HOUR, hosts: Sequence[str] = LOOPBACK
    ) -> TlsFiles:
        """A recognizer's files; made anew where they are there."""
        return self.ca.files(self.ca.issue_server(name, hosts, valid))

    def client(self, role: Role, name: str, valid: timedelta = HOUR) -> TlsFiles:
        """A client's files; made anew where they are there."""
        return self.ca.files(self.ca.issue_client(Identity(role, name), valid))

    def odd_client(self, *sans: x509.GeneralName) -> TlsFiles:
        """A client's files with names that `mien certificates` gives to none."""
        usage = ExtendedKeyUsageOID.CLIENT_AUTH
        return self.ca.files(self.ca._issue("odd", sans, usage, HOUR))


def settings(files: TlsFiles) -> dict[str, Any]:
    """The settings tls_* of either end."""
    return {"tls_ca": files.ca, "tls_certificate": files.certificate, "tls_key": files.key}


def flags(files: TlsFiles) -> Sequence[str]:
    """The same as flags."""
    return [part for name, path in settings(files).items() for part in (f"--{name}", str(path))]


def channel(port: int, files: TlsFiles) -> grpc.aio.Channel:
    """A channel to a recognizer on loopback, to be entered."""
    return grpc.aio.secure_channel(f"127.0.0.1:{port}", files.read().channel_credentials())


@asynccontextmanager
async def recognizer(bundles: Path, authority: Authority, **more: Any) -> AsyncIterator[Running]:
    """A recognizer in this process with the authority's certificate. more: further settings."""
    async with running_recognizer(bundles, **settings(authority.server()), **more) as running:
        yield running


class TokenIssuer:
    """Makes tokens, and keeps the public key in a file."""

    def __init__(self, folder: Path) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.path = folder / "tokens.pem"
        self.path.write_bytes(
            self.key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )

    def token(self, **claims: Any) -> str:
        """A consumer's token that is valid for an hour, but for what is given; None leaves out."""
        usual = {"sub": "shop", "role": "consumer", "aud": "mien", "exp": datetime.now(UTC) + HOUR}
        given = {name: value for name, value in (usual | claims).items() if value is not None}
        return jwt.encode(given, self.key, algorithm="ES256")
