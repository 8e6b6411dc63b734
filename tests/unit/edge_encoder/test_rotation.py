"""A device whose certificate is rotated while it streams, against a real recognizer process."""

import time
from collections import Counter
from pathlib import Path

import pytest

from edge_encoder.dialling import Dialler
from edge_encoder.encoder_cache import fetch_encoder
from edge_encoder.metrics import Metrics
from edge_encoder.servers import Servers, Target
from edge_encoder.uplink import Uplink, UplinkSettings
from mien.backoff import Backoff
from mien.bundle import Bundle
from mien.errors import ProtocolError, UnavailableError
from mien.identity import Role
from mien.messages.results import ItemStatus
from mien.tls import FollowedTls, TlsFiles
from tests.support.certificates import Authority, flags
from tests.support.recognizer import eventually, hello
from tests.support.services import serving
from tests.support.uplinks import FACES, Device, chunk

PATIENCE_S = 60.0
# Of a machine that is busy with other things.
PATIENT = UplinkSettings(
    give_up_s=PATIENCE_S, welcome_timeout_s=PATIENCE_S, answer_timeout_s=PATIENCE_S
)
ROTATIONS = 3


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.made(tmp_path / "certificates")


def tls_uplink(address: str, bundle: Bundle, files: TlsFiles, device_id: str = "door") -> Device:
    metrics = Metrics()
    dialler = Dialler(FollowedTls(files, metrics.certificate_refusals.inc), metrics, look_s=0.02)
    device: Device
    uplink = Uplink(
        Servers((address,)),
        PATIENT,
        hello(bundle, device_id),
        lambda sent, result: device.answers.append((sent, result)),
        metrics,
        backoff=Backoff(first_s=0.01, longest_s=0.05),
        dialler=dialler,
    )
    device = Device(uplink, metrics)
    return device


async def test_every_face_is_recognised_once_though_both_ends_rotate_their_certificates(
    bundle: Bundle, authority: Authority, tmp_path: Path
) -> None:
    files = authority.client(Role.DEVICE, "door")
    sent: Counter[bytes] = Counter()
    with serving(bundle.folder, tmp_path / "cloud.log", 0, *flags(authority.server())) as cloud:
        device = tls_uplink(cloud.address, bundle, files)
        async with device.uplink as uplink:
            await uplink.ready()
            for rotation in range(ROTATIONS):
                for seed in range(8):
                    more = chunk(bundle, 100 * rotation + seed)
                    sent[more.payload] += 1
                    await uplink.put(more)
                    if seed == 3:  # with chunks under way
                        authority.server()
                        files = authority.client(Role.DEVICE, "door")
                await eventually(lambda n=rotation: device.reconnects("rotated") == n + 1)
                await eventually(lambda: uplink.connected)
            await uplink.finish()
        assert cloud.process.process.poll() is None
    assert device.recognised == sent
    assert all(result.status is ItemStatus.RESULT for _, result in device.answers)
    assert len(device.answers) == ROTATIONS * 8
    assert sum(len(result.recognitions) for _, result in device.answers) == (
        FACES * len(device.answers)
    )
    shown = device.sample("certificate_expiry_timestamp_seconds")
    assert shown == files.read().expires_unix_s


async def test_a_bad_new_certificate_leaves_the_stream_as_it_is(
    bundle: Bundle, authority: Authority, tmp_path: Path
) -> None:
    files = authority.client(Role.DEVICE, "door")
    assert files.certificate is not None
    with serving(bundle.folder, tmp_path / "cloud.log", 0, *flags(authority.server())) as cloud:
        device = tls_uplink(cloud.address, bundle, files)
        async with device.uplink as uplink:
            await uplink.ready()
            files.certificate.write_text("no certificate")
            await eventually(lambda: device.sample("certificate_refusals_total") == 1)
            await uplink.put(chunk(bundle))
            await uplink.finish()
    assert len(device.answers) == 1
    assert device.reconnects("rotated") == 0


async def test_an_id_that_is_not_the_certificates_ends_the_run_with_what_to_do(
    bundle: Bundle, authority: Authority, tmp_path: Path
) -> None:
    files = authority.client(Role.DEVICE, "door")
    with serving(bundle.folder, tmp_path / "cloud.log", 0, *flags(authority.server())) as cloud:
        async with tls_uplink(cloud.address, bundle, files, "yard").uplink as uplink:
            with pytest.raises(ProtocolError, match="must be that of the device's certificate"):
                await uplink.ready()
        log = (tmp_path / "cloud.log").read_text()
    assert "PRIVATE KEY" not in log


async def test_an_encoder_comes_over_tls_by_name_and_not_from_a_stranger(
    bundle: Bundle, authority: Authority, tmp_path: Path
) -> None:
    files = authority.client(Role.DEVICE, "door")
    with serving(bundle.folder, tmp_path / "cloud.log", 0, *flags(authority.server())) as cloud:
        # Dialled by its address, as the walk does; checked by its name.
        servers = Servers((f"localhost:{cloud.port}",))
        dialler = Dialler(FollowedTls(files))
        fetched = await fetch_encoder(servers, tmp_path / "kept", PATIENCE_S, dialler=dialler)
        assert fetched.bundle_id == bundle.bundle_id
        stranger = Authority.made(tmp_path / "stranger").client(Role.DEVICE, "door")
        dialler = Dialler(FollowedTls(stranger))
        with pytest.raises(UnavailableError, match="TLS"):
            await fetch_encoder(servers, tmp_path / "none", 0.0, dialler=dialler)


async def test_a_device_says_once_that_its_certificate_has_expired(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    dialler = Dialler(FollowedTls(authority.client(Role.DEVICE, "door")))
    there = Target(1, "localhost:1", "localhost:1", ())
    async with dialler.channel(there, ()):
        assert "has expired" not in caplog.text
    now_s = time.time()
    monkeypatch.setattr("mien.tls.time.time", lambda: now_s + 7200)
    for _ in range(2):
        async with dialler.channel(there, ()):
            assert caplog.text.count("the certificate has expired") == 1
