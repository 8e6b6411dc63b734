"""A connection to the recognizer, with gRPC's errors said in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mien.errors import ConfigError, MienError, ResumeLostError, UnavailableError
from mien.tls import TlsFiles, check_plaintext

if TYPE_CHECKING:
    import grpc

_CONNECT_S = 5.0


class RefusedError(MienError):
    """The recognizer answered, and the answer was no."""

    code = "refused"


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
            return grpc.insecure_channel(address)
        credentials = self.tls.read().channel_credentials()
        if (token := self.bearer) is not None:
            call = grpc.access_token_call_credentials(token)
            credentials = grpc.composite_channel_credentials(credentials, call)
        return grpc.secure_channel(address, credentials)


PLAIN = Security()


def _token(path: Path) -> str:
    try:
        token = path.read_text("ascii").strip()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} holds no token: {type(error).__name__}") from None
    if not token or any(character.isspace() for character in token):
        raise ConfigError(f"{path} must hold one token and nothing else")
    return token


@contextmanager
def connected(
    address: str, security: Security = PLAIN, *, resumes: bool = False
) -> Iterator[grpc.Channel]:
    """A channel to HOST:PORT that is up, closed at the end.

    resumes: the call can be made again, so INTERNAL and CANCELLED mean a lost connection too:
    proxies say them of a server that is gone.

    Raises UnavailableError when nothing answers within five seconds or the connection is lost,
    ResumeLostError for a token that leads nowhere, RefusedError when the recognizer refuses a call.
    """
    import grpc

    with security.channel(address) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=_CONNECT_S)
        except grpc.FutureTimeoutError:
            raise UnavailableError(
                f"no recognizer answers at {address} within {_CONNECT_S:g} s; "
                "is mien-cloud running there, is this the port it printed, and do both sides "
                "use TLS and trust each other's authority, or neither?"
            ) from None
        try:
            yield channel
        except grpc.RpcError as error:
            raise _domain_error(address, error, resumes) from None


def _domain_error(address: str, error: grpc.RpcError, resumes: bool) -> MienError:
    import grpc

    # Every error of a call is a grpc.Call too; the base class alone says nothing.
    code = error.code() if isinstance(error, grpc.Call) else grpc.StatusCode.UNKNOWN
    details = error.details() if isinstance(error, grpc.Call) else str(error)
    gone = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
    if resumes:
        gone |= {grpc.StatusCode.INTERNAL, grpc.StatusCode.CANCELLED}
    if code in gone:
        return UnavailableError(f"the recognizer at {address} went away: {details}")
    if code is grpc.StatusCode.OUT_OF_RANGE:
        return ResumeLostError(f"the recognizer at {address} cannot go on: {details}")
    return RefusedError(f"the recognizer at {address} refused ({code.name}): {details}")
