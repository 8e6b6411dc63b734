"""The recognizer's certificate and its authorities change while it serves."""

import asyncio
import socket
import ssl
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2

from mien.bundle import Bundle
from mien.identity import Role
from mien.messages.downward import Drain
from mien.tls import TlsFiles
from mien.v1.bundle_pb2 import ListBundlesRequest
from mien.v1.bundle_pb2_grpc import BundleServiceStub
from mien.v1.recognition_pb2_grpc import RecognitionServiceStub
from tests.support.certificates import Authority, channel, recognizer
from tests.support.recognizer import Device, eventually, health, hello, payload

CODE = grpc.StatusCode


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.made(tmp_path / "certificates")


def served_until_s(port: int, files: TlsFiles) -> float:
    """The end of the certificate that a recognizer shows to a newcomer."""
    context = ssl.create_default_context(cafile=files.ca)
    assert files.certificate is not None
    context.load_cert_chain(files.certificate, files.key)
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", port)) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as wrapped,
    ):
        shown = wrapped.getpeercert()
    assert shown is not None
    return ssl.cert_time_to_seconds(str(shown["notAfter"]))


async def test_the_recognizer_takes_a_new_certificate_and_open_streams_go_on(
    bundles: Path, bundle: Bundle, authority: Authority
) -> None:
    door = authority.client(Role.DEVICE, "door")
    server = authority.server()
    assert server.key is not None
    async with recognizer(bundles, authority) as running:
        port = running.serving.port
        async with channel(port, door) as connected:
            device = Device(RecognitionServiceStub(connected))
            await device.open(hello(bundle, "door"))
            await device.send(1, payload(bundle))
            await device.acknowledged(1)
            good = server.key.read_bytes()
            server.key.write_bytes(b"half a file")
            yard = authority.client(Role.DEVICE, "yard")
            async with channel(port, yard) as newcomer:  # served with what was good before
                assert await health(newcomer) == health_pb2.HealthCheckResponse.SERVING
            await eventually(lambda: running.sample("certificate_refusals_total") == 1)
            server.key.write_bytes(good)
            authority.server(valid=timedelta(hours=9))
            async with channel(port, yard) as newcomer:
                assert await health(newcomer) == health_pb2.HealthCheckResponse.SERVING
            shown = await asyncio.to_thread(served_until_s, port, yard)
            assert shown == server.read().expires_unix_s
            await device.send(2, payload(bundle, seed=1))
            assert [result.seq for result in (await device.close()).results] == [2]
        await eventually(lambda: running.sample("certificate_expiry_timestamp_seconds") > 0)


async def test_an_authority_is_succeeded_while_the_recognizer_serves(
    bundles: Path, authority: Authority, tmp_path: Path
) -> None:
    successor = Authority.made(tmp_path / "successor").client(Role.DEVICE, "door")
    door = TlsFiles(authority.folder / "ca.pem", successor.certificate, successor.key)
    async with recognizer(bundles, authority) as running:
        port = running.serving.port
        async with channel(port, door) as early:
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await health(early)
            assert raised.value.code() is CODE.UNAVAILABLE
        both = door.ca.read_bytes() + successor.ca.read_bytes()
        door.ca.with_suffix(".new").write_bytes(both)
        door.ca.with_suffix(".new").replace(door.ca)
        async with channel(port, door) as in_time:
            assert await health(in_time) == health_pb2.HealthCheckResponse.SERVING
        async with channel(port, authority.client(Role.DEVICE, "yard")) as of_the_old_one:
            assert await health(of_the_old_one) == health_pb2.HealthCheckResponse.SERVING


async def test_a_connection_is_of_no_use_once_its_certificate_has_expired(
    bundles: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = ListBundlesRequest()
    shop = authority.client(Role.CONSUMER, "shop")
    ends_s = shop.read().expires_unix_s
    assert ends_s is not None
    async with (
        recognizer(bundles, authority) as running,
        channel(running.serving.port, shop) as connected,
    ):
        stub = BundleServiceStub(connected)
        assert (await stub.ListBundles(request)).bundles
        monkeypatch.setattr("cloud_recognizer.access.time.time", lambda: ends_s + 1)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.ListBundles(request)
        assert raised.value.code() is CODE.UNAVAILABLE
        assert "has expired" in str(raised.value.details())
        assert running.sample("rpc_errors_total", code="identity_expired") == 1


@pytest.mark.parametrize("leaves", [True, False])
async def test_a_device_is_asked_to_go_when_its_certificate_ends_and_cut_if_it_stays(
    bundles: Path,
    bundle: Bundle,
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
    leaves: bool,
) -> None:
    door = authority.client(Role.DEVICE, "door")
    ends_s = door.read().expires_unix_s
    assert ends_s is not None
    async with (
        recognizer(bundles, authority, drain_grace_s=30.0 if leaves else 0.05) as running,
        channel(running.serving.port, door) as connected,
    ):
        # It stands still: however slow this machine is, the stream begins before the end.
        monkeypatch.setattr("cloud_recognizer.access.time.time", lambda: ends_s - 0.2)
        device = Device(RecognitionServiceStub(connected))
        await device.open(hello(bundle, "door"))
        assert isinstance(await device.read(), Drain)
        if leaves:
            await device.send(1, payload(bundle))
            assert [result.seq for result in (await device.close()).results] == [1]
        else:
            assert (await device.status())[0] is CODE.UNAVAILABLE
            assert running.sample("rpc_errors_total", code="identity_expired") == 1
        await eventually(lambda: running.sample("streams") == 0)
