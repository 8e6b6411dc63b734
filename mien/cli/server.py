"""A connection to the recognizer, with gRPC's errors said in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mien.cli.security import PLAIN, Security
from mien.errors import MienError, ResumeLostError, UnauthenticatedError, UnavailableError

if TYPE_CHECKING:
    import grpc

_CONNECT_S = 5.0


class RefusedError(MienError):
    """The recognizer answered, and the answer was no."""

    code = "refused"


@contextmanager
def connected(
    address: str, security: Security = PLAIN, *, resumes: bool = False
) -> Iterator[grpc.Channel]:
    """A channel to HOST:PORT that is up, closed at the end.

    resumes: the call can be made again, so INTERNAL and CANCELLED mean a lost connection too:
    proxies say them of a server that is gone.

    Raises UnavailableError when nothing answers within five seconds or the connection is lost,
    ResumeLostError for a token that leads nowhere, UnauthenticatedError when the recognizer does
    not take what says who calls, RefusedError when it refuses a call.
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
    kind = UnauthenticatedError if code is grpc.StatusCode.UNAUTHENTICATED else RefusedError
    return kind(f"the recognizer at {address} refused ({code.name}): {details}")
