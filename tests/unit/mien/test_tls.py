"""TLS files: what is wrong with one is said by name, and a rotation is followed."""

import shutil
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mien.cli.certificates import DevelopmentCa
from mien.cli.main import main
from mien.errors import CertificateError, ConfigError
from mien.followed import SETTLE_S
from mien.identity import Identity, Role
from mien.tls import FollowedTls, TlsFiles, check_plaintext, is_loopback
from tests.support.certificates import Authority

NAMES = st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}", fullmatch=True)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.made(tmp_path / "certificates")


@given(st.sampled_from(Role), NAMES)
def test_an_identity_survives_its_uri(role: Role, name: str) -> None:
    assert Identity.from_uri(Identity(role, name).uri) == Identity(role, name)


@pytest.mark.parametrize(
    "uri",
    [
        *("", "door", "https://mien/device/door", "spiffe://other/device/door"),
        *("spiffe://mien/device", "spiffe://mien/device/", "spiffe://mien/device/a/b"),
        *("spiffe://mien/admin/a", "spiffe://mien/device/..", "spiffe://mien/device/a b"),
        f"spiffe://mien/device/{'a' * 65}",
    ],
)
def test_any_other_uri_is_no_identity(uri: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Identity.from_uri(uri)


Break = Callable[[TlsFiles, Path], object]


def _other_key(files: TlsFiles, folder: Path) -> None:
    assert files.key is not None
    other = Authority.made(folder / "other").client(Role.DEVICE, "door")
    assert other.key is not None
    shutil.copy(other.key, files.key)


@pytest.mark.parametrize(
    ("named", "breaks"),
    [
        (r"device-door\.pem cannot be read", lambda files, _: files.certificate.unlink()),
        (r"device-door\.pem holds no certificate", lambda f, _: f.certificate.write_text("x")),
        (r"device-door-key\.pem holds no private key", lambda f, _: f.key.write_text("secret-x")),
        (r"the key in .*device-door-key\.pem is not that of", _other_key),
        (r"ca\.pem holds no certificate", lambda files, _: files.ca.write_bytes(b"\xff")),
        (r"ca\.pem has more than", lambda files, _: files.ca.write_bytes(b"x" * (2 << 20))),
    ],
)
def test_a_bad_file_is_named_with_what_is_wrong(
    authority: Authority, tmp_path: Path, named: str, breaks: Break
) -> None:
    files = authority.client(Role.DEVICE, "door")
    files.read()
    breaks(files, tmp_path)
    with pytest.raises(CertificateError, match=named) as raised:
        files.read()
    assert "secret-x" not in str(raised.value)


def test_an_expired_certificate_is_refused_with_its_date(authority: Authority) -> None:
    files = authority.client(Role.DEVICE, "door", timedelta(hours=1))
    expires_s = files.read().expires_unix_s
    assert expires_s is not None
    files.read(expires_s - 1)
    with pytest.raises(CertificateError, match=r"device-door\.pem expired on \d{4}-"):
        files.read(expires_s)


def test_the_end_of_the_authority_is_the_end_of_what_it_has_issued(tmp_path: Path) -> None:
    short = Authority(tmp_path, DevelopmentCa.make(tmp_path, timedelta(minutes=10)))
    files = short.client(Role.DEVICE, "door", timedelta(hours=1))
    longer = Authority.made(tmp_path / "longer").client(Role.DEVICE, "door", timedelta(hours=1))
    expires_s = files.read().expires_unix_s
    assert expires_s is not None
    assert expires_s == pytest.approx(time.time() + 600, abs=120)
    of_another = TlsFiles(files.ca, longer.certificate, longer.key)
    assert of_another.read().expires_unix_s == pytest.approx(expires_s, abs=120)
    with pytest.raises(CertificateError, match=r"every authority in .*ca\.pem has expired"):
        of_another.read(expires_s + 200)


def test_a_certificate_that_begins_later_is_refused_and_taken_when_it_is_time(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = authority.client(Role.DEVICE, "door")
    followed = FollowedTls(files)
    first = followed.current()
    authority.client(Role.DEVICE, "door")
    real = time.time
    monkeypatch.setattr("mien.tls.time.time", lambda: real() - 7200)
    with pytest.raises(CertificateError, match=r"device-door\.pem is valid from \d{4}-"):
        files.read()
    assert followed.current() is first
    monkeypatch.setattr("mien.tls.time.time", real)
    assert followed.current() == files.read() != first


def test_a_rotation_is_followed_and_a_half_one_waits_for_its_other_half(
    authority: Authority, tmp_path: Path
) -> None:
    files = authority.client(Role.DEVICE, "door")
    refused: list[int] = []
    now_s = [0.0]
    followed = FollowedTls(files, lambda: refused.append(1), lambda: now_s[0])
    first = followed.current()
    assert followed.current() is first
    newer = Authority(tmp_path / "newer", authority.ca)
    shutil.copytree(authority.folder, newer.folder)
    other = Authority(newer.folder, type(authority.ca)(newer.folder)).client(Role.DEVICE, "door")
    assert files.certificate is not None
    assert other.certificate is not None
    assert files.key is not None
    assert other.key is not None
    shutil.copy(other.certificate, files.certificate)
    assert followed.current() is first
    assert refused == []  # the other half may come in a moment
    for _ in range(3):
        now_s[0] += SETTLE_S
        assert followed.current() is first
    assert refused == [1]  # said once, not at each look
    shutil.copy(other.key, files.key)
    assert followed.current().certificate == other.certificate.read_bytes()
    files.key.unlink()
    for _ in range(3):
        assert followed.current().certificate == other.certificate.read_bytes()
        now_s[0] += SETTLE_S
    assert len(refused) == 2


def test_a_key_is_shown_by_no_repr_and_read_by_its_owner_only(authority: Authority) -> None:
    files = authority.client(Role.DEVICE, "door")
    assert files.key is not None
    assert "PRIVATE" not in repr(files.read())
    assert files.key.stat().st_mode & 0o077 == 0
    assert (authority.folder / "ca-key.pem").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "[::1]", "dns:localhost"])
def test_loopback_may_be_plain(host: str) -> None:
    assert is_loopback(host)
    check_plaintext(host, insecure=False, remedy="")


@pytest.mark.parametrize("host", ["[::]", "0.0.0.0", "cloud", "localhost.evil.org", "10.0.0.1", ""])  # noqa: S104
def test_what_is_not_loopback_must_be_insisted_upon(host: str) -> None:
    check_plaintext(host, insecure=True, remedy="")
    with pytest.raises(ConfigError, match="give tls_ca, or insist on plaintext with insecure"):
        check_plaintext(host, insecure=False, remedy="give tls_ca")
    with pytest.raises(ConfigError, match="plaintext with nats_insecure"):
        check_plaintext(host, insecure=False, remedy="", insistence="nats_insecure")


def test_an_authority_is_not_made_twice_and_one_is_needed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["certificates", "--folder", str(tmp_path)]
    assert main([*where, "device", "door"]) == 2
    assert "holds no authority" in capsys.readouterr().err
    assert main([*where, "ca"]) == 0
    before = (tmp_path / "ca-key.pem").read_bytes()
    assert main([*where, "ca"]) == 2
    assert (tmp_path / "ca-key.pem").read_bytes() == before
    assert main([*where, "device", "no/name"]) == 2
    assert main([*where, "--days", "0", "device", "door"]) == 2
    assert main([*where, "device", "door"]) == 0
    assert capsys.readouterr().out.endswith("device-door.pem\n")
