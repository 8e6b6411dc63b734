"""How NATS is reached and who we are there: addresses, TLS, login."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self, TypedDict
from urllib.parse import urlsplit

from mien.errors import ConfigError
from mien.tls import TlsFiles, check_plaintext
from mien.whole_file import read_bounded

_MAX_LOGIN_BYTES: Final = 4096


class Login(TypedDict, total=False):
    """As nats-py calls it: user and password, or token, or nothing."""

    user: str
    password: str
    token: str


@dataclass(frozen=True)
class NatsAccess:
    """servers: addresses of one scheme, tls://host:4222 or nats://host:4222. tls: the files of the
    first. login: a file with USER:PASSWORD, or with a token.
    """

    servers: tuple[str, ...]
    tls: TlsFiles | None = None
    login: Path | None = None

    @classmethod
    def of(
        cls, addresses: str, tls: TlsFiles | None, login: Path | None, *, insecure: bool
    ) -> Self:
        """What the settings nats… mean. insecure: whether plaintext beyond loopback is wanted.

        Raises ConfigError, which shows no password.
        """
        servers = tuple(addresses.split(","))
        parts = [_parts(server) for server in servers]
        schemes = {scheme for scheme, _, _ in parts}
        if len(schemes) > 1:
            raise ConfigError("nats must have one scheme for all: tls:// or nats://")
        if login is not None and any(has_user for *_, has_user in parts):
            raise ConfigError("nats_login and a user in nats exclude each other: leave one away")
        if schemes == {"nats"}:
            if tls is not None:
                raise ConfigError("nats_ca needs TLS: write tls:// where nats has nats://")
            remedy = "write tls:// in nats and give nats_ca"
            for _, host, _ in parts:
                check_plaintext(host, insecure=insecure, remedy=remedy, insistence="nats_insecure")
        elif tls is None:
            raise ConfigError("nats with tls:// needs nats_ca, the PEM file of its authorities")
        elif insecure:
            raise ConfigError("nats_insecure and tls:// exclude each other: leave one away")
        return cls(servers, tls, login)

    def read_tls(self) -> ssl.SSLContext | None:
        """What to shake hands with; None is plaintext. Raises CertificateError."""
        if self.tls is None:
            return None
        material = self.tls.read()
        context = ssl.create_default_context(cadata=material.ca.decode())
        if self.tls.certificate is not None:
            context.load_cert_chain(self.tls.certificate, self.tls.key)
        return context

    def read_login(self) -> Login:
        """What the file says. Raises ConfigError, which does not show it."""
        if self.login is None:
            return Login()
        try:
            text = read_bounded(self.login, _MAX_LOGIN_BYTES, ConfigError).decode().strip()
        except UnicodeDecodeError:
            text = ""
        user, separator, password = text.partition(":")
        if not text or "\n" in text or (separator and not (user and password)):
            raise ConfigError(
                f"nats_login: {self.login} must be one line, USER:PASSWORD or a token"
            )
        return Login(user=user, password=password) if separator else Login(token=text)


def _parts(server: str) -> tuple[str, str, bool]:
    """Scheme, host, and whether there is a user."""
    try:
        parts = urlsplit(server.strip())
        sound = parts.scheme in ("tls", "nats") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound:
        # Without what was given: it may be a part of a password.
        raise ConfigError(
            "nats must be addresses such as tls://host:4222 or nats://host:4222, commas between"
        )
    return parts.scheme, str(parts.hostname), parts.username is not None
