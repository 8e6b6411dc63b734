"""The one table from domain errors to gRPC status, with google.rpc details."""

import logging
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from cloud_recognizer.metrics import Metrics
from mien.errors import (
    ERROR_DOMAIN,
    BitstreamError,
    DeadlineExceededError,
    LabelsDisabledError,
    MienError,
    OverloadedError,
    PolicyError,
    ProtocolError,
    RateLimitedError,
    ReconstructionDisabledError,
    ResumeLostError,
    SupersededError,
    UnauthenticatedError,
    UnavailableError,
    UnknownBundleError,
    WrongDeviceError,
    WrongRoleError,
)

_log = logging.getLogger(__name__)
_Request = TypeVar("_Request")
_Response = TypeVar("_Response")

INTERNAL_CODE: Final = "internal"
INTERNAL_MESSAGE: Final = "unexpected error; the server's log has the details"

STATUS: Final[dict[type[MienError], grpc.StatusCode]] = {
    BitstreamError: grpc.StatusCode.INVALID_ARGUMENT,
    ProtocolError: grpc.StatusCode.INVALID_ARGUMENT,
    UnknownBundleError: grpc.StatusCode.NOT_FOUND,
    ReconstructionDisabledError: grpc.StatusCode.PERMISSION_DENIED,
    LabelsDisabledError: grpc.StatusCode.PERMISSION_DENIED,
    UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    WrongRoleError: grpc.StatusCode.PERMISSION_DENIED,
    WrongDeviceError: grpc.StatusCode.PERMISSION_DENIED,
    PolicyError: grpc.StatusCode.PERMISSION_DENIED,
    OverloadedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    SupersededError: grpc.StatusCode.ABORTED,
    DeadlineExceededError: grpc.StatusCode.DEADLINE_EXCEEDED,
    ResumeLostError: grpc.StatusCode.OUT_OF_RANGE,  # nothing else is, so that clients can tell
    UnavailableError: grpc.StatusCode.UNAVAILABLE,
}
_RETRY_AFTER_S: Final[dict[type[MienError], int]] = {OverloadedError: 1, UnavailableError: 1}


def status_of(error: Exception) -> grpc.Status:
    """The status an error ends its RPC with; INTERNAL with a fixed text for an unexpected one.

    Details: an ErrorInfo with the error's code as reason, and a RetryInfo where trying again helps.
    That of a PolicyError has the rule and the declared context as metadata.
    """
    kind = _kind(error)
    if kind is None or not isinstance(error, MienError):
        return _status(grpc.StatusCode.INTERNAL, INTERNAL_MESSAGE, INTERNAL_CODE)
    retry_after_s = _RETRY_AFTER_S.get(kind)
    if isinstance(error, RateLimitedError):
        retry_after_s = max(math.ceil(error.retry_after_s), 1)
    metadata = {}
    if isinstance(error, PolicyError):
        metadata = {"rule": error.rule, "context": error.context}
    return _status(STATUS[kind], str(error), error.code, retry_after_s, metadata)


def _kind(error: Exception) -> type[MienError] | None:
    return next((kind for kind in STATUS if isinstance(error, kind)), None)


def _status(
    code: grpc.StatusCode,
    message: str,
    reason: str,
    retry_after_s: int | None = None,
    metadata: Mapping[str, str] | None = None,
) -> grpc.Status:
    details = [_packed(ErrorInfo(reason=reason, domain=ERROR_DOMAIN, metadata=metadata))]
    if retry_after_s is not None:
        details.append(_packed(RetryInfo(retry_delay=Duration(seconds=retry_after_s))))
    status: grpc.Status = rpc_status.to_status(
        Status(code=code.value[0], message=message, details=details)
    )
    return status


@asynccontextmanager
async def aborting(
    context: grpc.aio.ServicerContext[_Request, _Response], metrics: Metrics
) -> AsyncIterator[None]:
    """End the RPC with the status of an error raised inside; a traceback goes to the log only."""
    try:
        yield
    except Exception as error:
        if context.cancelled() or context.done():
            _log.debug("an RPC ended while it was answered: %r", error)
            raise
        code = error.code if isinstance(error, MienError) and _kind(error) else INTERNAL_CODE
        metrics.rpc_errors.labels(code).inc()
        if code == INTERNAL_CODE:
            _log.exception("an RPC failed")
        await context.abort_with_status(status_of(error))


def _packed(message: ErrorInfo | RetryInfo) -> Any:
    packed = Any()
    packed.Pack(message)
    return packed
