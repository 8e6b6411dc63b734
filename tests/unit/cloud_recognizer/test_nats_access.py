"""How NATS is reached: by tls:// never without TLS, in plaintext only where it was asked for."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_recognizer.config import CloudConfig
from mien.errors import CertificateError, ConfigError, UnavailableError
from mien.identity import Role
from tests.support.certificates import Authority
from tests.support.hubs import opened, publish, read, seqs
from tests.support.nats_server import NatsServer, nats_server

PASSWORD = "hunter2"  # noqa: S105


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    (tmp_path / "ours").mkdir()
    return Authority.made(tmp_path / "ours")


@pytest.fixture
def login(tmp_path: Path) -> Path:
    file = tmp_path / "login"
    file.write_text(f"me:{PASSWORD}\n")
    return file


@pytest.fixture
def guarded(tmp_path: Path, authority: Authority) -> Iterator[NatsServer]:
    """It speaks TLS alone, and asks for a certificate and a password."""
    files = authority.server()
    tls = ("--tls", "--tlsverify", "--tlscacert", str(files.ca))
    own = ("--tlscert", str(files.certificate), "--tlskey", str(files.key))
    with nats_server(tmp_path, *tls, *own, "--user", "me", "--pass", PASSWORD) as server:
        yield server


def secured(authority: Authority, server: NatsServer, **more: Any) -> dict[str, Any]:
    """Settings of a recognizer with a certificate for NATS."""
    client = authority.client(Role.OPERATOR, "recognizer")
    files = {"nats_certificate": client.certificate, "nats_key": client.key}
    address = server.address.replace("nats://", "tls://")
    return {"nats": address, "nats_ca": client.ca, **files, **more}


async def test_results_travel_over_tls_with_certificate_and_password(
    guarded: NatsServer, authority: Authority, login: Path
) -> None:
    settings = secured(authority, guarded, nats_login=login)
    async with (
        opened(**settings) as one,
        opened(**settings) as two,
        two.hub.subscription((), ()) as watched,
    ):
        await publish(one.hub, [1, 2])
        assert seqs(await read(watched, 2)) == [1, 2]


@pytest.mark.parametrize("lacking", ["nats_login", "nats_certificate", "its authority"])
async def test_without_one_of_them_nothing_is_published(
    guarded: NatsServer,
    authority: Authority,
    login: Path,
    lacking: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cloud_recognizer.hub.opening.NATS_START_S", 2.0)
    settings = secured(authority, guarded, nats_login=login)
    if lacking == "its authority":
        (tmp_path / "other").mkdir()
        settings["nats_ca"] = Authority.made(tmp_path / "other").server().ca
    elif lacking == "nats_certificate":
        settings |= {"nats_certificate": None, "nats_key": None}
    else:
        del settings[lacking]
    with pytest.raises(UnavailableError):
        async with opened(**settings):
            pass


async def test_a_server_that_offers_no_tls_gets_neither_password_nor_results(
    tmp_path: Path, authority: Authority, login: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloud_recognizer.hub.opening.NATS_START_S", 2.0)
    # Its log has each line that clients send, passwords made invisible.
    with nats_server(tmp_path, "-V", "--user", "me", "--pass", PASSWORD) as server:
        with pytest.raises(UnavailableError, match="offers no TLS"):
            async with opened(**secured(authority, server, nats_login=login)):
                pass
        async with opened(nats=server.address, nats_login=login):
            pass
        log = (tmp_path / "nats.log").read_text()
    # Only the second, whom plaintext was allowed.
    assert log.count("CONNECT {") == 1


@pytest.mark.parametrize(
    "text", ["", "\n", "me:", ":secret", "me:secret\nyou:secret", "me:\udcff", "x" * 5000]
)
async def test_a_login_that_is_none_is_refused_and_not_shown(tmp_path: Path, text: str) -> None:
    login = tmp_path / "login"
    login.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ConfigError, match="login") as refused:
        async with opened(nats="nats://127.0.0.1:1", nats_login=login):
            pass
    assert "secret" not in str(refused.value)


async def test_files_that_cannot_be_used_end_the_start(
    authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "ca.pem").write_text("no PEM")
    with pytest.raises(CertificateError, match=r"ca\.pem"):
        async with opened(nats="tls://127.0.0.1:1", nats_ca=tmp_path / "ca.pem"):
            pass


CA = {"nats_ca": Path("ca.pem")}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"nats": "nats://10.0.0.9"}, "nats_insecure"),
        ({"nats": "nats://10.0.0.9", "insecure": True}, "nats_insecure"),  # of devices alone
        ({"nats": "nats://127.0.0.1,nats://me:secret@n"}, "nats_insecure"),
        ({"nats": "tls://n"}, "nats_ca"),
        ({"nats": "tls://n,nats://127.0.0.1", **CA}, "one scheme"),
        ({"nats": "nats://127.0.0.1", **CA}, "write tls://"),
        ({"nats": "tls://n", **CA, "nats_insecure": True}, "exclude each other"),
        ({"nats": "tls://n", **CA, "nats_key": Path("key.pem")}, "nats_certificate"),
        ({"nats": "tls://me:secret@n", **CA, "nats_login": Path("login")}, "nats_login"),
        ({"nats": "n:4222"}, "such as tls://host"),
        ({"nats": "ws://127.0.0.1"}, "such as tls://host"),
        ({"nats": "nats://me:secret@"}, "such as tls://host"),
        ({"nats": "nats://me:secret@n:port"}, "such as tls://host"),
        ({"nats": "nats://127.0.0.1,"}, "such as tls://host"),
        (CA, "give nats"),
        ({"nats_insecure": True}, "give nats"),
    ],
)
def test_what_is_neither_safe_nor_insisted_upon_is_refused(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        CloudConfig(Path(), **settings)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"nats": "nats://127.0.0.1:4222,nats://localhost,nats://[::1]:4222"},
        {"nats": "nats://nats:4222", "nats_insecure": True},
        {"nats": "tls://one:4222,tls://two:4222", **CA},
    ],
)
def test_what_is_safe_or_insisted_upon_is_taken(settings: dict[str, Any]) -> None:
    access = CloudConfig(Path(), **settings).nats_access
    assert access is not None
    assert access.servers == tuple(settings["nats"].split(","))


def test_the_login_is_shown_by_its_path_alone(login: Path) -> None:
    config = CloudConfig(Path(), nats="nats://127.0.0.1", nats_login=login)
    assert str(login) in json.dumps(config.loggable(), default=str)
    assert PASSWORD not in json.dumps(config.loggable(), default=str)
