"""A watch ends with the certificate or token that it was opened with, and goes on with the next."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from cloud_recognizer.caller import Caller
from cloud_recognizer.identity_end import within_identity
from mien.bundle import Bundle
from mien.cli.resuming import watching
from mien.cli.security import Security
from mien.errors import IdentityExpiredError
from mien.identity import Identity, Role
from mien.tls import TlsFiles
from mien.v1 import recognition_pb2 as pb
from mien.v1.recognition_pb2_grpc import RecognitionServiceStub
from tests.support.certificates import Authority, TokenIssuer, channel, recognizer
from tests.support.recognizer import Device, Running, eventually, hello, payload

CODE = grpc.StatusCode
DAY = timedelta(days=1)
# What a proof that ends soon has left when a call begins, however slow this machine is: the
# recognizer's clock stands still.
LEFT_S = 0.2
GIVE_UP_S = 60.0


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.made(tmp_path / "certificates")


class Way:
    """How a consumer comes in: with one that ends in an hour, then with one that lasts."""

    def __init__(self, authority: Authority, folder: Path, by_token: bool) -> None:
        self._authority = authority
        self._by_token = by_token
        self._token = folder / "token.jwt"
        self._issuer = TokenIssuer(folder)
        self.settings: dict[str, Any] = {"token_port": 0, "token_keys": self._issuer.path}
        self.ends_s = self.renew(timedelta(hours=1))

    def renew(self, valid: timedelta) -> float:
        end = datetime.now(UTC).replace(microsecond=0) + valid
        self._token.write_text(self._issuer.token(exp=end))
        self._files = self._authority.client(Role.CONSUMER, "shop", valid)
        read = self._files.read().expires_unix_s
        assert read is not None
        return end.timestamp() if self._by_token else read

    def spoil(self) -> None:
        """What lies there says nothing that the recognizer takes."""
        self._token.write_text("no.good.token")

    @property
    def security(self) -> Security:
        ca = TlsFiles(self._files.ca)
        return Security(ca, self._token) if self._by_token else Security(self._files)

    def port(self, running: Running) -> int:
        port = running.serving.token_port if self._by_token else running.serving.port
        assert port is not None
        return port


@pytest.fixture(params=["certificate", "token"])
def way(authority: Authority, tmp_path: Path, request: pytest.FixtureRequest) -> Way:
    return Way(authority, tmp_path, request.param == "token")


def about_to_end(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop the clock of `identity_end`, and no other: gRPC's client looks at one as well."""
    monkeypatch.setattr("mien.cli.server._CONNECT_S", GIVE_UP_S)  # a busy machine is no lost one
    stopped = SimpleNamespace(time=lambda: way.ends_s - LEFT_S)
    monkeypatch.setattr("cloud_recognizer.identity_end.time", stopped)


async def send(running: Running, authority: Authority, bundle: Bundle, seq: int) -> None:
    async with channel(
        running.serving.port, authority.client(Role.DEVICE, "door", DAY)
    ) as connected:
        device = Device(RecognitionServiceStub(connected))
        await device.open(hello(bundle, "door"))
        await device.send(seq, payload(bundle, seed=seq))
        await device.acknowledged(seq)
        await device.close()


async def seen_at_last(
    first: "asyncio.Task[Any]", running: Running, authority: Authority, bundle: Bundle
) -> int:
    """Send until a watch that is on its way back sees something; the last seq that was sent."""
    seq = 0
    while not first.done():
        seq += 1
        await send(running, authority, bundle, seq)
    assert 1 <= (await first).seq <= seq
    return seq


async def test_a_watch_goes_on_with_its_token_where_its_proof_has_ended(
    bundles: Path,
    bundle: Bundle,
    authority: Authority,
    way: Way,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    log = tmp_path / "audit"
    more = {"retention_s": 600.0, "audit_log": log, **way.settings}
    async with recognizer(bundles, authority, **more) as running:
        address = f"localhost:{way.port(running)}"
        request = pb.WatchRecognitionsRequest()
        seen = watching(address, request, GIVE_UP_S, way.security)
        about_to_end(way, monkeypatch)
        first = asyncio.create_task(asyncio.to_thread(next, seen))
        # Cut again and again while there is nothing to see, and always back.
        await eventually(lambda: running.sample("rpc_errors_total", code="identity_expired") >= 2)
        way.renew(DAY)
        last = await seen_at_last(first, running, authority, bundle)
        await send(running, authority, bundle, last + 1)
        while (await asyncio.to_thread(next, seen)).seq != last + 1:
            pass
        await asyncio.to_thread(seen.close)
        await eventually(lambda: running.sample("watchers") == 0)
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert {entry["event"] for entry in entries} == {"watch_begun", "watched"}
    assert {(entry["role"], entry["name"]) for entry in entries} == {("consumer", "shop")}
    begun = sum(entry["event"] == "watch_begun" for entry in entries)
    assert sum(entry.get("ended", False) for entry in entries) == begun


async def test_a_watch_waits_for_a_token_that_is_renewed_late(
    bundles: Path,
    bundle: Bundle,
    authority: Authority,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    way = Way(authority, tmp_path, by_token=True)
    async with recognizer(bundles, authority, retention_s=600.0, **way.settings) as running:
        address = f"localhost:{way.port(running)}"
        seen = watching(address, pb.WatchRecognitionsRequest(), GIVE_UP_S, way.security)
        about_to_end(way, monkeypatch)
        first = asyncio.create_task(asyncio.to_thread(next, seen))
        await eventually(lambda: running.sample("rpc_errors_total", code="identity_expired") >= 1)
        way.spoil()
        await eventually(lambda: running.sample("rpc_errors_total", code="unauthenticated") >= 2)
        way.renew(DAY)
        await seen_at_last(first, running, authority, bundle)
        await asyncio.to_thread(seen.close)


async def test_the_end_is_unavailable_with_its_reason_though_nobody_reads(
    bundles: Path, authority: Authority, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with recognizer(bundles, authority, **way.settings) as running:
        about_to_end(way, monkeypatch)
        with way.security.channel(f"localhost:{way.port(running)}") as connected:
            call = RecognitionServiceStub(connected).WatchRecognitions(
                pb.WatchRecognitionsRequest()
            )
            code = await asyncio.to_thread(call.code)
        assert code is CODE.UNAVAILABLE
        assert "has expired" in call.details()


@pytest.mark.parametrize("ends_unix_s", [float("inf"), 1e300, 2.0**62])
async def test_an_end_that_never_comes_ends_nothing(ends_unix_s: float) -> None:
    async with within_identity(Caller(Identity(Role.CONSUMER, "shop"), ends_unix_s)):
        await asyncio.sleep(0)
    async with within_identity(None):
        await asyncio.sleep(0)


async def test_only_the_end_is_said_to_be_the_end() -> None:
    caller = Caller(Identity(Role.CONSUMER, "shop"), 2.0**62)
    with pytest.raises(TimeoutError, match="another"):
        async with within_identity(caller):
            raise TimeoutError("another")
    with pytest.raises(IdentityExpiredError):
        async with within_identity(Caller(caller.identity, 0.0)):
            await asyncio.Event().wait()
