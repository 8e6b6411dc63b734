"""Envoy as it is deployed, before recognizers that speak mutual TLS: who gets through, as whom."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest

from benchmarks import envoy
from mien.bundle import Bundle
from mien.identity import Role
from mien.tls import TlsFiles
from mien.v1 import recognition_pb2 as pb
from mien.v1.recognition_pb2_grpc import RecognitionServiceStub
from tests.support.certificates import Authority, flags
from tests.support.recognizer import Device, hello, payload
from tests.support.services import Cloud, serving
from tests.support.tiny_bundle import make_tiny_bundle
from tests.support.waiting import PATIENCE_S, until

pytestmark = pytest.mark.skipif(envoy.why_not() is not None, reason=str(envoy.why_not()))
HOST = "127.0.0.1"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_tiny_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.made(tmp_path_factory.mktemp("authority") / "certificates")


@pytest.fixture(scope="module")
def clouds(
    bundle: Bundle, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Cloud]]:
    """Two recognizers."""
    folder = tmp_path_factory.mktemp("clouds")
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                serving(bundle.folder, folder / f"{number}.log", 0, *flags(authority.server()))
            )
            for number in range(2)
        ]


@pytest.fixture(scope="module")
def front(clouds: list[Cloud], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an Envoy before both."""
    health = {cloud.address: cloud.metrics_port for cloud in clouds}
    with envoy.envoy(health, tmp_path_factory.mktemp("envoy")) as running:
        yield running.address


def dialled(front: str, files: TlsFiles) -> grpc.aio.Channel:
    """A connection of its own, as a device's is."""
    own = (("grpc.use_local_subchannel_pool", 1),)
    return grpc.aio.secure_channel(front, files.read().channel_credentials(), own)


async def test_a_device_streams_under_the_id_of_its_certificate_and_under_no_other(
    front: str, bundle: Bundle, authority: Authority
) -> None:
    async with dialled(front, authority.client(Role.DEVICE, "door")) as channel:
        device = Device(RecognitionServiceStub(channel))
        await device.open(hello(bundle, "door"))
        await device.send(1, payload(bundle))
        assert [result.seq for result in (await device.close()).results] == [1]
        other = Device(RecognitionServiceStub(channel))
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await other.open(hello(bundle, "yard"))
        assert raised.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_consumer_watches_and_a_device_may_not(front: str, authority: Authority) -> None:
    request = pb.WatchRecognitionsRequest()
    async with dialled(front, authority.client(Role.CONSUMER, "shop")) as channel:
        call = RecognitionServiceStub(channel).WatchRecognitions(request)
        await call.initial_metadata()
        call.cancel()
    async with dialled(front, authority.client(Role.DEVICE, "door")) as channel:
        call = RecognitionServiceStub(channel).WatchRecognitions(request)
        assert await call.code() is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("case", ["stranger", "no certificate", "plaintext"])
async def test_who_has_no_certificate_of_the_authority_reaches_nothing_through_envoy(
    front: str, bundle: Bundle, authority: Authority, tmp_path: Path, case: str
) -> None:
    ours = authority.client(Role.DEVICE, "door")
    theirs = Authority.made(tmp_path / "stranger").client(Role.DEVICE, "door")
    shown = {
        "stranger": TlsFiles(ours.ca, theirs.certificate, theirs.key),
        "no certificate": TlsFiles(ours.ca),
    }
    connect = grpc.aio.insecure_channel(front) if case == "plaintext" else None
    async with connect or dialled(front, shown[case]) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await Device(RecognitionServiceStub(channel)).open(hello(bundle, "door"))
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_recognizer_that_is_not_well_gets_no_connection_and_none_well_closes_it(
    front: str, clouds: list[Cloud], bundle: Bundle, authority: Authority
) -> None:
    async def streams(name: str) -> bool:
        async with dialled(front, authority.client(Role.DEVICE, name)) as channel:
            device = Device(RecognitionServiceStub(channel))
            try:
                await device.open(hello(bundle, name))
            except grpc.aio.AioRpcError:
                return False
            await device.close()
            return True

    drained, left = clouds
    drained.process.terminate()
    assert drained.process.wait(60) == 0
    # It had nobody to drain, so it may be gone before Envoy has asked it again; until then all of
    # Envoy's attempts for a connection may go to it.
    until_s = time.monotonic() + PATIENCE_S
    while not all([await streams(f"camera{number}") for number in range(6)]):
        assert time.monotonic() < until_s
    left.process.terminate()
    assert left.process.wait(60) == 0
    assert not await streams("late")
    # Envoy itself is there, and says so by closing.
    until(lambda: closes(front))


def closes(front: str) -> bool:
    host, _, port = front.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        return connection.recv(1) == b""
