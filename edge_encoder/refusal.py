"""What a recognizer says beside the status of a call that it refuses: google.rpc's details."""

from dataclasses import dataclass
from typing import Final, Self

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from mien.errors import ERROR_DOMAIN

# However long a server asks for: it may be wrong, or may have been replaced meanwhile.
MAX_WAIT_S: Final = 300.0


@dataclass(frozen=True)
class Refusal:
    """reason: a code of docs/errors.md, "" where none is said. retry_after_s: 0 to MAX_WAIT_S."""

    reason: str = ""
    retry_after_s: float = 0.0

    @classmethod
    def of(cls, error: grpc.aio.AioRpcError) -> Self:
        """What the error holds; details that cannot be read are none."""
        try:
            status = rpc_status.from_call(error)  # type: ignore[arg-type]  # has all it asks for
            return cls() if status is None else cls(_reason(status), _retry_after_s(status))
        except (DecodeError, ValueError):  # a ValueError where code and details do not agree
            return cls()


def _reason(status: Status) -> str:
    info = ErrorInfo()
    for item in status.details:
        if item.Unpack(info) and info.domain == ERROR_DOMAIN:
            return info.reason
    return ""


def _retry_after_s(status: Status) -> float:
    retry = RetryInfo()
    for item in status.details:
        if item.Unpack(retry):
            asked_s = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
            return min(max(asked_s, 0.0), MAX_WAIT_S)
    return 0.0
