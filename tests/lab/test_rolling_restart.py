"""Three recognizers that share a NATS, restarted one after the other under two devices.

Behind Envoy as it is deployed: over mutual TLS, which Envoy passes on.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from benchmarks import envoy
from mien.identity import Role
from mien.tls import TlsFiles
from tests.support.certificates import Authority, flags
from tests.support.consumer import Consumer
from tests.support.lab import Lab, cloud_metric
from tests.support.lab_device import LabDevice
from tests.support.nats_server import NatsServer
from tests.support.services import Cloud
from tests.support.waiting import until

RECOGNIZERS = 3
DEVICES = ("door", "yard")
behind_envoy = pytest.mark.skipif(envoy.why_not() is not None, reason=str(envoy.why_not()))


@dataclass(frozen=True)
class Secured:
    """What each has of one authority."""

    server: TlsFiles
    devices: Mapping[str, TlsFiles]
    consumer: TlsFiles

    @classmethod
    def made(cls, lab: Lab) -> "Secured":
        authority = Authority.made(lab.folder / "certificates")
        devices = {name: authority.client(Role.DEVICE, name) for name in DEVICES}
        return cls(authority.server(), devices, authority.client(Role.CONSUMER, "shop"))


def started(lab: Lab, nats: NatsServer, secured: Secured | None = None) -> list[Cloud]:
    more = flags(secured.server) if secured else ()
    return [lab.recognizer(*more, nats=nats) for _ in range(RECOGNIZERS)]


def before(lab: Lab, clouds: list[Cloud]) -> str:
    """The address of an Envoy before these recognizers."""
    health = {cloud.address: cloud.metrics_port for cloud in clouds}
    return lab.stack.enter_context(envoy.envoy(health, lab.folder)).address


def filming_devices(lab: Lab, server: str, secured: Secured | None = None) -> list[LabDevice]:
    """Devices that have results already."""
    devices = [
        lab.device(
            *(server, "--queue_chunks", "512"),
            *(flags(secured.devices[name]) if secured else ()),
            name=name,
        )
        for name in DEVICES
    ]
    for device in devices:
        device.until_recognised(4)
    return devices


def roll(
    lab: Lab,
    nats: NatsServer,
    clouds: list[Cloud],
    devices: list[LabDevice],
    secured: Secured | None = None,
) -> None:
    """Drain, end and start each again, while faces come; the next when all is well."""
    for number, cloud in enumerate(clouds):
        cloud.process.terminate()
        assert cloud.process.wait(60) == 0
        more = flags(secured.server) if secured else ()
        # Where it was before, for Envoy knows both ports of each.
        more = (*more, "--metrics_port", str(cloud.metrics_port))
        clouds[number] = lab.recognizer(*more, nats=nats, port=cloud.port)
        for device in devices:
            device.until_recognised(4)


def check(lab: Lab, consumer: Consumer, clouds: list[Cloud], devices: list[LabDevice]) -> None:
    """Books that balance, and streams at recognizers that are new."""
    assert sum(cloud_metric(cloud, "streams") for cloud in clouds) >= len(devices)
    for device in devices:
        device.see_nobody()
    books = lab.check_books(consumer, lambda: tuple(device.account for device in devices))
    assert sum(account.dropped.total() for account in books.accounts) == 0
    assert {name for name, *_ in books.seen} == set(DEVICES)
    for device in devices:
        assert device.stop() == 0


@pytest.mark.long
def test_a_rolling_restart_behind_the_devices_own_choice_costs_nothing(lab: Lab) -> None:
    nats = lab.nats()
    clouds = started(lab, nats)
    addresses = ",".join(cloud.address for cloud in clouds)
    consumer = lab.consumer(f"ipv4:{addresses}", *clouds)
    devices = filming_devices(lab, addresses)
    roll(lab, nats, clouds, devices)
    check(lab, consumer, clouds, devices)


@pytest.mark.long
@behind_envoy
def test_a_rolling_restart_behind_envoy_costs_nothing(lab: Lab) -> None:
    nats = lab.nats()
    secured = Secured.made(lab)
    clouds = started(lab, nats, secured)
    front = before(lab, clouds)
    consumer = lab.consumer(front, *clouds, files=secured.consumer)
    devices = filming_devices(lab, front, secured)
    roll(lab, nats, clouds, devices, secured)
    check(lab, consumer, clouds, devices)


@pytest.mark.long
@behind_envoy
def test_a_recognizer_that_is_killed_behind_envoy_costs_nothing(lab: Lab) -> None:
    nats = lab.nats()
    secured = Secured.made(lab)
    clouds = started(lab, nats, secured)
    front = before(lab, clouds)
    consumer = lab.consumer(front, *clouds, files=secured.consumer)
    devices = filming_devices(lab, front, secured)
    used = next(cloud for cloud in clouds if cloud_metric(cloud, "streams") >= 1)
    used.process.process.kill()
    left = [cloud for cloud in clouds if cloud is not used]
    until(lambda: sum(cloud_metric(cloud, "streams") for cloud in left) >= len(devices))
    for device in devices:
        device.until_recognised(8)
    check(lab, consumer, left, devices)
