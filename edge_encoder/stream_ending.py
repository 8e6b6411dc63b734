"""How a StreamFaces call ends, and which ends mean: come again."""

from enum import Enum
from typing import Final

import grpc

from edge_encoder.refusal import Refusal
from mien.errors import (
    MienError,
    PolicyError,
    UnavailableError,
    UnknownBundleError,
    WrongDeviceError,
    WrongRoleError,
)

# A broken stream surfaces as any of the first three. All of these mean: come again.
RESUMABLE: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNKNOWN,
    }
)

# Not what a device declares is refused, but who it is.
IDENTITY: Final = frozenset({WrongDeviceError.code, WrongRoleError.code})


class BrokenStreamError(UnavailableError):
    """The call broke in a way that means: come again.

    reason: one of `metrics.RECONNECTS`. retry_after_s: how long the server wants to be left alone.
    """

    code = "stream_broken"

    def __init__(self, reason: str, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after_s = retry_after_s


class Ending(Enum):
    """Why a call ended in order."""

    FINISHED = "everything is settled, and no more comes"
    DRAINED = "the server goes away"
    CLOSED = "the server closed the stream"
    ROTATED = "the device's certificate has changed"
    BEHIND = "more waits than the queue holds: fresh faces get an epoch of their own"


def meaning_of(error: grpc.aio.AioRpcError) -> MienError | None:
    """The domain error that a call's status stands for; None where it is another refusal."""
    code, details, refusal = error.code(), error.details(), Refusal.of(error)
    if code is grpc.StatusCode.NOT_FOUND:
        return UnknownBundleError(details)
    if code is grpc.StatusCode.PERMISSION_DENIED and refusal.reason not in IDENTITY:
        return PolicyError(details or "the server does not say why")
    if code not in RESUMABLE:
        return None
    return BrokenStreamError(code.name.lower(), f"{code.name}: {details}", refusal.retry_after_s)
