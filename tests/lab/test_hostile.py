"""A million payloads that nobody coded and ten thousand broken streams, beside healthy devices."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from mien.bundle import Bundle
from mien.codec import ChunkCodec
from mien.errors import BitstreamError
from mien.v1 import recognition_pb2 as pb
from mien.v1.recognition_pb2_grpc import RecognitionServiceStub
from tests.support.books import Books
from tests.support.hostile import BEHAVIOURS, HostileStreams, malformed_payloads
from tests.support.lab import Lab, cloud_metric
from tests.support.services import Cloud

# Room for everything to be late, so that nothing healthy is refused for it: it is the bytes that
# are tried here, and the machine may be busy.
PATIENT = ("--max_age_s", "600")
CALL_PAYLOADS = 256
TIMEOUT_S = 600
LONG = (pytest.mark.long, pytest.mark.timeout(7200))


def beside_healthy_devices(lab: Lab, attack: Callable[[Cloud], None]) -> Books:
    """Two devices stream, the attack runs, they stream on; the books of every face they found."""
    cloud = lab.recognizer(*PATIENT)
    consumer = lab.consumer(cloud.address, cloud)
    quiet = ("--answer_timeout_s", "600", "--queue_chunks", "4096")
    devices = [lab.device(cloud.address, *quiet, name=name) for name in ("door", "yard")]
    for device in devices:
        device.until_recognised(4)
    attack(cloud)
    for device in devices:
        device.until_recognised(4)
        device.see_nobody()
    books = lab.check_books(consumer, lambda: tuple(device.account for device in devices))
    assert all(not account.rejected and not account.dropped for account in books.accounts)
    assert {device for device, *_ in books.seen} == {"door", "yard"}
    assert cloud.process.process.poll() is None
    assert cloud_metric(cloud, "rpc_errors_total", code="internal") == 0
    assert "Traceback" not in (lab.folder / "cloud-1.log").read_text()
    for device in devices:
        assert device.stop() == 0
    return books


@pytest.mark.parametrize("count", [5_000, pytest.param(1_000_000, marks=LONG)])
def test_malformed_payloads_are_each_answered_as_this_process_decodes_them(
    lab: Lab, bundle: Bundle, count: int
) -> None:
    codes: Counter[str] = Counter()

    def attack(cloud: Cloud) -> None:
        codec = bundle.codec()
        # One thread decodes here while the recognizer answers.
        with (
            grpc.insecure_channel(cloud.address) as channel,
            ThreadPoolExecutor(1) as pool,
        ):
            stub = RecognitionServiceStub(channel)
            for number, start in enumerate(range(0, count, CALL_PAYLOADS)):
                size = min(CALL_PAYLOADS, count - start)
                sent = list(malformed_payloads(bundle, size, seed=number))
                expected = pool.submit(decoded, codec, sent)
                request = pb.RecognizeRequest(payloads=sent)
                response = stub.Recognize(request, timeout=TIMEOUT_S, wait_for_ready=True)
                assert answers(response) == expected.result()
                codes.update(expected.result())

    beside_healthy_devices(lab, attack)
    assert codes.total() == count
    # All ways to be wrong were tried, and some mutations are payloads themselves.
    assert codes.keys() >= {"truncated", "checksum_mismatch", "malformed", "1 faces"}
    lab.entry.figures = {f"payloads: {code}": float(n) for code, n in sorted(codes.items())}


def decoded(codec: ChunkCodec, payloads: Sequence[bytes]) -> list[str]:
    """For each the error's code, or how many faces it holds."""
    return [
        outcome.code if isinstance(outcome, BitstreamError) else f"{len(outcome)} faces"
        for outcome in codec.decode_chunks(payloads)
    ]


def answers(response: pb.RecognizeResponse) -> list[str]:
    return [
        result.error.code
        if result.status == pb.ITEM_STATUS_REJECTED
        else f"{len(result.recognitions)} faces"
        for result in response.results
    ]


@pytest.mark.parametrize("count", [130, pytest.param(10_000, marks=LONG)])
def test_malformed_streams_end_alone(lab: Lab, bundle: Bundle, count: int) -> None:
    ended: Counter[tuple[str, str]] = Counter()
    attacked: list[Cloud] = []

    def attack(cloud: Cloud) -> None:
        streams = HostileStreams(bundle, cloud.address, seed=count)
        asyncio.run(streams.run(count))
        ended.update(streams.ended)
        attacked.append(cloud)

    beside_healthy_devices(lab, attack)
    assert ended.total() == count
    by_behaviour: dict[str, set[str]] = {}
    for behaviour, status in ended:
        by_behaviour.setdefault(behaviour, set()).add(status)
    assert by_behaviour.keys() == {behave.__name__ for behave in BEHAVIOURS}
    # Those that flood are cut while they write, and seldom see why: the recognizer's own count.
    floods = sum(n for (behaviour, _), n in ended.items() if behaviour == "_more_than_granted")
    assert cloud_metric(attacked[0], "rpc_errors_total", code="overloaded") == floods
    assert cloud_metric(attacked[0], "dropped_total", reason="no_credit") == floods
    for behaviour, expected in STATUSES.items():
        seen = by_behaviour[behaviour]
        assert expected in seen or behaviour == "_more_than_granted", f"{behaviour} {seen}"
        assert seen <= {expected, *BROKEN}, f"{behaviour} {seen}"
    lab.entry.figures = {f"{one} {status}": float(n) for (one, status), n in sorted(ended.items())}


# What a client may see in place of a status that comes while it still writes: gRPC's own words.
BROKEN = ("INTERNAL", "UNAVAILABLE", "CANCELLED")
STATUSES = {
    "_no_protobuf": "INVALID_ARGUMENT",
    "_nothing_in_it": "INVALID_ARGUMENT",
    "_no_hello": "INVALID_ARGUMENT",
    "_unsafe_name": "INVALID_ARGUMENT",
    "_no_such_time": "INVALID_ARGUMENT",
    "_unknown_bundle": "NOT_FOUND",
    "_two_hellos": "INVALID_ARGUMENT",
    "_seq_goes_back": "INVALID_ARGUMENT",
    "_more_than_granted": "RESOURCE_EXHAUSTED",
    "_damaged_chunks": "OK",
    "_far_too_long": "OK",
    "_gone_in_the_middle": "CANCELLED",
}
