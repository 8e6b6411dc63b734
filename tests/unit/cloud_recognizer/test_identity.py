"""Real handshakes over loopback: who is let in, who may call what, and how that is refused."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_health.v1 import health_pb2
from grpc_status import rpc_status

from cloud_recognizer.access import PUBLIC, ROLES
from mien.bundle import Bundle
from mien.identity import Role
from mien.tls import TlsFiles
from mien.v1 import bundle_pb2, recognition_pb2
from mien.v1.bundle_pb2_grpc import BundleServiceStub
from mien.v1.recognition_pb2_grpc import RecognitionServiceStub
from tests.support.certificates import Authority, TokenIssuer, channel, recognizer, settings
from tests.support.recognizer import (
    Device,
    health,
    hello,
    payload,
    running_recognizer,
)

CODE = grpc.StatusCode
URI = x509.UniformResourceIdentifier


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.made(tmp_path / "certificates")


def reason(error: grpc.aio.AioRpcError) -> str:
    status = rpc_status.from_call(error)
    assert status is not None
    (packed,) = [item for item in status.details if item.Is(ErrorInfo.DESCRIPTOR)]
    return ErrorInfo.FromString(packed.value).reason


async def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return raised.value.code(), reason(raised.value)


async def test_a_device_streams_under_the_id_of_its_certificate(
    bundles: Path, bundle: Bundle, authority: Authority
) -> None:
    async with (
        recognizer(bundles, authority) as running,
        channel(running.serving.port, authority.client(Role.DEVICE, "door")) as connected,
    ):
        device = Device(RecognitionServiceStub(connected))
        await device.open(hello(bundle, "door"))
        await device.send(1, payload(bundle))
        assert [result.seq for result in (await device.close()).results] == [1]


async def test_another_device_id_than_the_certificates_is_refused(
    bundles: Path, bundle: Bundle, authority: Authority
) -> None:
    async with (
        recognizer(bundles, authority) as running,
        channel(running.serving.port, authority.client(Role.DEVICE, "door")) as connected,
    ):
        call = Device(RecognitionServiceStub(connected))
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call.open(hello(bundle, "yard"))
        assert raised.value.code() is CODE.PERMISSION_DENIED
        assert reason(raised.value) == "wrong_device"
        assert running.sample("rpc_errors_total", code="wrong_device") == 1
        assert running.sample("streams") == 0


@pytest.mark.parametrize("case", ["stranger", "expired", "no certificate", "plaintext"])
async def test_who_has_no_certificate_of_the_authority_never_reaches_the_service(
    bundles: Path, authority: Authority, tmp_path: Path, case: str
) -> None:
    stranger = Authority.made(tmp_path / "stranger").client(Role.OPERATOR, "eve")
    good = authority.client(Role.OPERATOR, "eve", timedelta(seconds=-1))
    async with recognizer(bundles, authority) as running:
        address = f"127.0.0.1:{running.serving.port}"
        ca = good.ca.read_bytes()
        pair = {"stranger": stranger, "expired": good}.get(case, TlsFiles(good.ca))
        own = [path.read_bytes() if path else None for path in (pair.key, pair.certificate)]
        dialled = (
            grpc.aio.insecure_channel(address)
            if case == "plaintext"
            else grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(ca, *own))
        )
        async with dialled as connected:
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await health(connected)
            assert raised.value.code() is CODE.UNAVAILABLE


async def test_a_client_refuses_a_recognizer_of_another_authority(
    bundles: Path, authority: Authority, tmp_path: Path
) -> None:
    stranger = Authority.made(tmp_path / "stranger").client(Role.OPERATOR, "ops")
    async with (
        recognizer(bundles, authority) as running,
        channel(running.serving.port, stranger) as connected,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await health(connected)
        assert raised.value.code() is CODE.UNAVAILABLE


@pytest.mark.parametrize(
    "names",
    [
        pytest.param((x509.DNSName("door"),), id="a host's name"),
        pytest.param((URI("spiffe://elsewhere/device/door"),), id="another trust domain"),
        pytest.param((URI("spiffe://mien/root/door"),), id="no role"),
        # Which of them should it be?
        pytest.param((URI("spiffe://mien/device/door"), URI("spiffe://mien/operator/o")), id="two"),
    ],
)
async def test_a_certificate_of_the_authority_without_one_identity_is_nobodys(
    bundles: Path, authority: Authority, names: tuple[x509.GeneralName, ...]
) -> None:
    async with (
        recognizer(bundles, authority) as running,
        channel(running.serving.port, authority.odd_client(*names)) as connected,
    ):
        call = RecognitionServiceStub(connected).StreamFaces()
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            # No Hello: a refusal that overtakes a write is gRPC's own failure to grpc.aio.
            await call.read()
        assert raised.value.code() is CODE.UNAUTHENTICATED
        assert reason(raised.value) == "unauthenticated"
        assert running.sample("rpc_errors_total", code="unauthenticated") == 1


async def test_a_client_refuses_a_recognizer_whose_certificate_is_for_another_host(
    bundles: Path, authority: Authority
) -> None:
    elsewhere = authority.server("elsewhere", hosts=("cloud.example", "10.0.0.1"))
    ops = authority.client(Role.OPERATOR, "ops")
    async with (
        running_recognizer(bundles, **settings(elsewhere)) as running,
        channel(running.serving.port, ops) as connected,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await health(connected)
        assert raised.value.code() is CODE.UNAVAILABLE


async def test_a_wrong_role_is_denied_and_counted_and_a_right_one_is_served(
    bundles: Path, bundle: Bundle, authority: Authority
) -> None:
    request = recognition_pb2.RecognizeRequest(payloads=[payload(bundle)])
    image = recognition_pb2.ReconstructRequest(payload=payload(bundle))
    async with recognizer(bundles, authority, allow_reconstruction=True) as running:
        port = running.serving.port
        async with channel(port, authority.client(Role.DEVICE, "door")) as connected:
            stub = RecognitionServiceStub(connected)
            assert await refused(stub.Recognize(request)) == (CODE.PERMISSION_DENIED, "wrong_role")
            listed = BundleServiceStub(connected).ListBundles(bundle_pb2.ListBundlesRequest())
            assert (await listed).bundles
        async with channel(port, authority.client(Role.CONSUMER, "shop")) as connected:
            stub = RecognitionServiceStub(connected)
            assert len((await stub.Recognize(request)).results) == 1
            assert await refused(stub.Reconstruct(image)) == (CODE.PERMISSION_DENIED, "wrong_role")
            code, _ = await Device(stub).status()
            assert code is CODE.PERMISSION_DENIED
        async with channel(port, authority.client(Role.OPERATOR, "ops")) as connected:
            stub = RecognitionServiceStub(connected)
            assert (await stub.Reconstruct(image)).faces
        assert running.sample("rpc_errors_total", code="wrong_role") == 3


async def test_tokens_open_the_token_port_only_when_they_are_good(
    bundles: Path, bundle: Bundle, authority: Authority, tmp_path: Path
) -> None:
    issuer = TokenIssuer(tmp_path)
    (tmp_path / "other").mkdir()
    forger = TokenIssuer(tmp_path / "other")
    request = recognition_pb2.RecognizeRequest(payloads=[payload(bundle)])
    past = datetime.now(UTC) - timedelta(minutes=1)
    bad = {
        "expired": issuer.token(exp=past),
        "wrong audience": issuer.token(aud="another"),
        "no end": issuer.token(exp=None),
        "no role": issuer.token(role=None),
        "a device's role": issuer.token(role="device"),
        "forged": forger.token(),
        "no token": "x",
    }
    more = {"token_port": 0, "token_keys": issuer.path}
    async with recognizer(bundles, authority, **more) as running:
        port = running.serving.token_port
        assert port is not None
        async with channel(port, TlsFiles(authority.folder / "ca.pem")) as connected:
            stub = RecognitionServiceStub(connected)

            def recognize(token: str) -> Any:
                return stub.Recognize(request, metadata=(("authorization", f"Bearer {token}"),))

            assert len((await recognize(issuer.token())).results) == 1
            for what, token in bad.items():
                said = await refused(recognize(token))
                assert said == (CODE.UNAUTHENTICATED, "unauthenticated"), what
            assert (await refused(stub.Recognize(request)))[0] is CODE.UNAUTHENTICATED
            assert await health(connected) == health_pb2.HealthCheckResponse.SERVING


async def test_a_token_opens_no_port_that_asks_for_a_certificate(
    bundles: Path, authority: Authority, tmp_path: Path
) -> None:
    issuer = TokenIssuer(tmp_path)
    more = {"token_port": 0, "token_keys": issuer.path}
    async with (
        recognizer(bundles, authority, **more) as running,
        channel(running.serving.port, TlsFiles(authority.folder / "ca.pem")) as connected,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await health(connected)
        assert raised.value.code() is CODE.UNAVAILABLE


def test_every_rpc_of_the_contract_has_its_roles() -> None:
    methods = {
        f"/{service.full_name}/{method.name}"
        for module in (recognition_pb2, bundle_pb2)
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    assert methods <= set(ROLES)
    assert all(ROLES.values())
    assert not PUBLIC & set(ROLES)
