"""What a refusal says beside its status, and that the device keeps to it."""

import grpc
import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from edge_encoder.refusal import MAX_WAIT_S, Refusal
from mien.bundle import Bundle
from mien.errors import ERROR_DOMAIN
from tests.support.recognizer import running_recognizer
from tests.support.uplinks import chunk, device

CODE = grpc.StatusCode.RESOURCE_EXHAUSTED
KEY = "grpc-status-details-bin"


def packed(message: ErrorInfo | RetryInfo) -> Any:
    item = Any()
    item.Pack(message)
    return item


def details(*messages: ErrorInfo | RetryInfo, code: grpc.StatusCode = CODE) -> bytes:
    status = Status(code=code.value[0], message="no", details=[packed(m) for m in messages])
    return status.SerializeToString()


def after(seconds: int, nanos: int = 0) -> RetryInfo:
    return RetryInfo(retry_delay=Duration(seconds=seconds, nanos=nanos))


def refusal(data: bytes | None) -> Refusal:
    trailing = grpc.aio.Metadata() if data is None else grpc.aio.Metadata((KEY, data))
    return Refusal.of(grpc.aio.AioRpcError(CODE, grpc.aio.Metadata(), trailing, details="no"))


OURS = ErrorInfo(reason="rate_limited", domain=ERROR_DOMAIN)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (details(OURS, after(2, 500_000_000)), Refusal("rate_limited", 2.5)),
        (details(after(7)), Refusal("", 7.0)),
        (details(OURS), Refusal("rate_limited", 0.0)),
        # What cannot be, what is somebody else's, and what is none.
        (details(after(10**11)), Refusal("", MAX_WAIT_S)),
        (details(after(-5, -1)), Refusal()),
        (details(ErrorInfo(reason="wrong_device", domain="proxy.example")), Refusal()),
        (details(OURS, code=grpc.StatusCode.OK), Refusal()),
        (details(), Refusal()),
        (b"\xff\xff\xff", Refusal()),
        (None, Refusal()),
    ],
)
def test_details_are_read_within_bounds_and_bad_ones_are_none(
    data: bytes | None, said: Refusal
) -> None:
    assert refusal(data) == said


def test_a_detail_whose_content_is_damaged_is_none() -> None:
    item = packed(after(5))
    item.value = b"\xff"
    status = Status(code=CODE.value[0], message="no", details=[item])
    assert refusal(status.SerializeToString()) == Refusal()


async def test_a_device_in_debt_comes_again_when_it_is_paid_and_not_before(
    bundle: Bundle,
) -> None:
    limits = {"device_chunks_per_s": 2.0, "device_burst_s": 0.5}
    async with running_recognizer(bundle.folder, **limits) as running:
        address = f"127.0.0.1:{running.serving.port}"
        async with device(address, bundle) as first:
            for seed in range(5):
                await first.uplink.put(chunk(bundle, seed))
            await first.uplink.finish()
        # Its waits are a twentieth of a second at most; the debt is two seconds.
        async with device(address, bundle, epoch=2) as second:
            await second.uplink.put(chunk(bundle, 9))
            await second.uplink.finish()
            assert len(second.answers) == 1
        assert running.sample("rate_limited_total", how="stream_refused") <= 1
