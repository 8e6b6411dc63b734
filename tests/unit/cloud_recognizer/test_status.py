"""The table of errors."""

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from cloud_recognizer.status import status_of
from mien import errors


def details(error: Exception) -> list[Message]:
    """The google.rpc messages that travel with the status of an error."""
    ((key, value),) = status_of(error).trailing_metadata
    assert key == "grpc-status-details-bin"
    assert isinstance(value, bytes)
    unpacked: list[Message] = []
    for packed in Status.FromString(value).details:
        known: tuple[Message, ...] = (ErrorInfo(), RetryInfo())
        (message,) = [kind for kind in known if packed.type_url.endswith(kind.DESCRIPTOR.full_name)]
        assert packed.Unpack(message)
        unpacked.append(message)
    return unpacked


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ChecksumError("m"), grpc.StatusCode.INVALID_ARGUMENT),
        (errors.MalformedError("m"), grpc.StatusCode.INVALID_ARGUMENT),
        (errors.ProtocolError("m"), grpc.StatusCode.INVALID_ARGUMENT),
        (errors.UnknownBundleError("m"), grpc.StatusCode.NOT_FOUND),
        (errors.ReconstructionDisabledError("m"), grpc.StatusCode.PERMISSION_DENIED),
        (errors.PolicyError("m"), grpc.StatusCode.PERMISSION_DENIED),
        (errors.AuditError("m"), grpc.StatusCode.UNAVAILABLE),
        (errors.OverloadedError("m"), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (errors.SupersededError("m"), grpc.StatusCode.ABORTED),
        (errors.DeadlineExceededError("m"), grpc.StatusCode.DEADLINE_EXCEEDED),
        (errors.ResumeLostError("m"), grpc.StatusCode.OUT_OF_RANGE),
        (errors.UnavailableError("m"), grpc.StatusCode.UNAVAILABLE),
    ],
)
def test_a_domain_error_keeps_its_message_and_says_its_code(
    error: errors.MienError, code: grpc.StatusCode
) -> None:
    status = status_of(error)
    assert (status.code, status.details) == (code, "m")
    info = details(error)[0]
    assert isinstance(info, ErrorInfo)
    assert (info.reason, info.domain) == (error.code, "mien")


@pytest.mark.parametrize(
    "error", [KeyError("secret"), errors.BundleHashError("/srv/secret"), errors.MienError("secret")]
)
def test_anything_else_is_internal_and_tells_nothing(error: Exception) -> None:
    status = status_of(error)
    assert status.code is grpc.StatusCode.INTERNAL
    assert "secret" not in status.details
    assert b"secret" not in status.trailing_metadata[0][1]
    info = details(error)[0]
    assert isinstance(info, ErrorInfo)
    assert info.reason == "internal"


def test_only_what_passes_by_itself_says_when_to_try_again() -> None:
    assert [type(item) for item in details(errors.OverloadedError("m"))] == [ErrorInfo, RetryInfo]
    assert [type(item) for item in details(errors.ProtocolError("m"))] == [ErrorInfo]
