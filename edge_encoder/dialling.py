"""Channels to a recognizer: plaintext, or TLS with the certificate as it is now.

gRPC does not take a new client certificate into an open channel. So a stream whose certificate was
rotated is left in order, and the next one dials with the new files.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

import grpc

from edge_encoder.config import EdgeConfig
from edge_encoder.metrics import Metrics
from edge_encoder.servers import Target
from mien.tls import FollowedTls, TlsMaterial

_log = logging.getLogger(__name__)

# Certificates last for hours at least, and stat of three files costs next to nothing.
LOOK_S: Final = 5.0

# Of channels for streams; `encoder_download` has other ones.
STREAM_CHANNEL_OPTIONS: Final = (
    # Every attempt is a connection of its own: waits are ours, and its bytes can be counted.
    ("grpc.use_local_subchannel_pool", 1),
    # Bandwidth probes cost bytes and find nothing at a few hundred bytes a second.
    ("grpc.http2.bdp_probe", 0),
    # Pings are for idle streams; unlimited, for their pace is bounded by keepalive_s.
    ("grpc.http2.max_pings_without_data", 0),
)

Options = Sequence[tuple[str, str | int]]


class Dialler:
    """Dials targets. tls: None for plaintext; look_s: how often its files are looked at.

    token: a JWT that goes with every call, for a consumer at the token port.
    """

    def __init__(
        self,
        tls: FollowedTls | None = None,
        metrics: Metrics | None = None,
        look_s: float = LOOK_S,
        token: str | None = None,
    ) -> None:
        self._tls = tls
        self._metrics = metrics
        self._look_s = look_s
        self._token = token
        self._dialled: TlsMaterial | None = None
        self._told: TlsMaterial | None = None

    def channel(self, target: Target, options: Options) -> grpc.aio.Channel:
        """A channel, to be entered."""
        options = (*options, *target.options)
        if self._tls is None:
            return grpc.aio.insecure_channel(target.dial, options)
        self._dialled = self._look(self._tls)
        self._tell_of_expiry(self._dialled)
        credentials = self._dialled.channel_credentials()
        if self._token is not None:
            call = grpc.access_token_call_credentials(self._token)
            credentials = grpc.composite_channel_credentials(credentials, call)
        return grpc.aio.secure_channel(target.dial, credentials, options)

    def beside(self) -> "Dialler":
        """Another one with the same files: each remembers what it has dialled with itself."""
        return Dialler(self._tls, self._metrics, self._look_s, self._token)

    async def until_rotated(self) -> None:
        """Returns once there are other files than those that were dialled with."""
        dialled = self._dialled
        while self._tls is None or self._look(self._tls) == dialled:
            await asyncio.sleep(self._look_s)

    def _tell_of_expiry(self, material: TlsMaterial) -> None:
        # Once, for attempts come every second: all that a server says is that the socket is closed.
        if material.expired and material != self._told:
            self._told = material
            _log.error(
                "the certificate has expired: no recognizer takes it; put a new one in place"
            )

    def _look(self, tls: FollowedTls) -> TlsMaterial:
        material = tls.current()
        if self._metrics is not None and material.expires_unix_s is not None:
            self._metrics.certificate_expiry.set(material.expires_unix_s)
        return material


PLAIN: Final = Dialler()


def stream_options(keepalive_s: float, answer_timeout_s: float) -> Options:
    """Of a channel for streams: STREAM_CHANNEL_OPTIONS, and how a silent server is found out.

    keepalive_s: the silence after which it is asked for a sign of life, for which it has
    answer_timeout_s.
    """
    time_ms, timeout_ms = (round(seconds * 1000) for seconds in (keepalive_s, answer_timeout_s))
    return (
        *STREAM_CHANNEL_OPTIONS,
        ("grpc.keepalive_time_ms", time_ms),
        # On Linux also TCP_USER_TIMEOUT: for a peer whose kernel is gone, too.
        ("grpc.keepalive_timeout_ms", timeout_ms),
        # For one that takes bytes and answers none; a minute otherwise, whatever is said above.
        ("grpc.http2.ping_timeout_ms", timeout_ms),
    )


def open_dialler(config: EdgeConfig, metrics: Metrics) -> Dialler:
    """As the settings say. Raises CertificateError for files that cannot be used."""
    if config.tls is None:
        return PLAIN
    return Dialler(FollowedTls(config.tls, metrics.certificate_refusals.inc), metrics)
