"""The recognizer's ports: plaintext, or TLS whose certificate is followed while it serves.

TLS asks each client for a certificate. gRPC for Python can only insist on one or not ask at all, so
clients with tokens have a port of their own.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import grpc

from cloud_recognizer.access import Access
from cloud_recognizer.config import CloudConfig
from cloud_recognizer.metrics import Metrics
from cloud_recognizer.tokens import Tokens
from mien.background import background
from mien.errors import ConfigError
from mien.tls import FollowedTls, TlsMaterial, is_loopback

_log = logging.getLogger(__name__)

# Handshakes look at the files themselves; this is for the metric while nobody connects.
LOOK_S: Final = 5.0


@dataclass(frozen=True)
class Transport:
    """How clients come in. access, tls: None over plaintext."""

    metrics: Metrics
    tls: FollowedTls | None = None
    access: Access | None = None

    def bind(self, server: grpc.aio.Server, config: CloudConfig) -> tuple[int, int | None]:
        """Bind the ports, before the server starts; returns them. Raises ConfigError."""
        if self.tls is None:
            if not is_loopback(config.host):
                _log.warning("listening on %s without TLS: --insecure was given", config.host)
            return _bound(server, config.host, config.port, None), None
        port = _bound(server, config.host, config.port, self._credentials(self.tls, mutual=True))
        if config.token_port is None:
            return port, None
        credentials = self._credentials(self.tls, mutual=False)
        return port, _bound(server, config.host, config.token_port, credentials)

    def _credentials(self, tls: FollowedTls, *, mutual: bool) -> grpc.ServerCredentials:
        newest = _Newest(tls, mutual)
        credentials: grpc.ServerCredentials = grpc.dynamic_ssl_server_credentials(
            newest.first,
            newest,  # type: ignore[arg-type]  # None means no change, says its documentation
            require_client_authentication=mutual,
        )
        return credentials

    @asynccontextmanager
    async def followed(self) -> AsyncIterator[None]:
        """Keep the metric of the certificate's end true while the context lasts."""
        if self.tls is None:
            yield
            return
        async with background(self._follow(self.tls), "certificate"):
            yield

    async def _follow(self, tls: FollowedTls) -> None:
        while True:
            material = await asyncio.to_thread(tls.current)
            if material.expires_unix_s is not None:
                self.metrics.certificate_expiry.set(material.expires_unix_s)
            await asyncio.sleep(LOOK_S)


def open_transport(config: CloudConfig, metrics: Metrics) -> Transport:
    """Read the files that the settings name. Raises CertificateError."""
    if config.tls is None:
        return Transport(metrics)
    tokens = None
    if config.token_keys is not None:
        tokens = Tokens(
            *(config.token_keys, config.token_audience, config.token_issuer),
            on_refused=metrics.certificate_refusals.inc,
        )
    tls = FollowedTls(config.tls, metrics.certificate_refusals.inc)
    return Transport(metrics, tls, Access(tokens))


class _Newest:
    """Asked for each handshake, on a thread of gRPC; open connections stay as they are."""

    def __init__(self, tls: FollowedTls, mutual: bool) -> None:
        self._tls = tls
        self._mutual = mutual
        self._given = tls.current()
        self.first = _configuration(self._given, mutual)

    def __call__(self) -> grpc.ServerCertificateConfiguration | None:
        """None where nothing has changed: gRPC then parses nothing anew."""
        material = self._tls.current()
        if material is self._given:
            return None
        self._given = material
        return _configuration(material, self._mutual)


def _configuration(material: TlsMaterial, mutual: bool) -> grpc.ServerCertificateConfiguration:
    pair = (material.key or b"", material.certificate or b"")  # CloudConfig asks for both
    return grpc.ssl_server_certificate_configuration([pair], material.ca if mutual else None)


def _bound(
    server: grpc.aio.Server, host: str, port: int, credentials: grpc.ServerCredentials | None
) -> int:
    address = f"{host}:{port}"
    try:
        if credentials is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise ConfigError(
            f"port {port} of {host} cannot be bound: is it taken? ({error})"
        ) from error
