"""A spool that is encrypted at rest, and what is said of keys that are not right."""

import sys
from pathlib import Path

import pytest

from edge_encoder.metrics import SPOOL_DAMAGED, Metrics
from edge_encoder.spool.database import FILE
from edge_encoder.spool.seal import sealed_by
from mien.errors import ConfigError
from tests.support.spooling import epoch, kept, numbered, spool_in

E1 = epoch(1)


def key_file(folder: Path, content: bytes = b"k" * 32, name: str = "key") -> Path:
    path = folder / name
    path.write_bytes(content)
    path.chmod(0o600)
    return path


def on_disk(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.glob(FILE + "*"))


def test_an_encrypted_spool_is_read_back_and_shows_no_payload(tmp_path: Path) -> None:
    key = key_file(tmp_path)
    with spool_in(tmp_path / "spool", key=key) as spool:
        spool.add(E1, 1, numbered(12345678))
        assert b"12345678" not in on_disk(tmp_path / "spool")
    with spool_in(tmp_path / "spool", key=key) as spool:
        assert spool.next_after(E1, 0) == (1, numbered(12345678))


def test_without_a_key_the_payload_is_there_to_read(tmp_path: Path) -> None:
    with spool_in(tmp_path / "spool") as spool:
        spool.add(E1, 1, numbered(12345678))
        assert b"12345678" in on_disk(tmp_path / "spool")


def test_the_same_chunk_is_never_written_the_same_way_twice(tmp_path: Path) -> None:
    seal = sealed_by(key_file(tmp_path))
    assert seal.close(b"body", b"name") != seal.close(b"body", b"name")


@pytest.mark.parametrize(("then", "says"), [(b"x" * 32, "another key"), (None, "wait encrypted")])
def test_a_wrong_key_is_a_wrong_setting_and_nothing_is_lost(
    then: bytes | None, says: str, tmp_path: Path
) -> None:
    key = key_file(tmp_path)
    with spool_in(tmp_path / "spool", key=key) as spool:
        spool.add(E1, 1, numbered(1))
    other = None if then is None else key_file(tmp_path, then, "other")
    with (
        pytest.raises(ConfigError, match=rf"spool_key: 1 chunks .*{says}.*--purge"),
        spool_in(tmp_path / "spool", key=other),
    ):
        pass
    with spool_in(tmp_path / "spool", key=key) as spool:
        assert kept(spool, E1) == [1]


def test_a_key_for_chunks_that_were_written_without_one_is_refused(tmp_path: Path) -> None:
    with spool_in(tmp_path / "spool") as spool:
        spool.add(E1, 1, numbered(1))
    with (
        pytest.raises(ConfigError, match="written without a key"),
        spool_in(tmp_path / "spool", key=key_file(tmp_path)),
    ):
        pass


def test_the_key_of_an_empty_spool_may_change(tmp_path: Path) -> None:
    first, second = key_file(tmp_path), key_file(tmp_path, b"x" * 32, "second")
    for key in (first, second, None, first):
        with spool_in(tmp_path / "spool", key=key) as spool:
            assert spool.add(E1, 1, numbered(1))
            assert kept(spool, E1) == [1]
            spool.settle(E1, 1, 1)


def test_a_row_in_another_s_place_is_not_taken_for_it(tmp_path: Path) -> None:
    metrics = Metrics()
    with spool_in(tmp_path / "spool", metrics, key=key_file(tmp_path)) as spool:
        spool.add(E1, 1, numbered(1))
        spool.add(E1, 2, numbered(2))
        assert spool._database is not None
        spool._database.execute(
            "UPDATE chunks SET body=(SELECT body FROM chunks WHERE seq=1) WHERE seq=2"
        )
        assert kept(spool, E1) == [1]
        assert metrics.drops == {SPOOL_DAMAGED: 1}


@pytest.mark.parametrize("content", [b"k" * 32, b"6b" * 32, b"6B" * 32 + b"\n"])
def test_a_key_is_32_bytes_or_their_hexadecimal_digits(content: bytes, tmp_path: Path) -> None:
    seal = sealed_by(key_file(tmp_path, content))
    same = sealed_by(key_file(tmp_path, b"k" * 32, "same"))
    assert same.open(seal.close(b"body", b"name"), b"name") == b"body"


@pytest.mark.parametrize("content", [b"", b"k" * 31, b"6b" * 31, b"zz" * 32, b"\xff" * 64])
def test_any_other_key_is_a_wrong_setting(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must hold 32 bytes or 64 hexadecimal digits"):
        sealed_by(key_file(tmp_path, content))


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = key_file(tmp_path)
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        sealed_by(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        sealed_by(tmp_path / "missing")


def test_without_the_package_it_is_said_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(ConfigError, match=r"pip install 'mien\[edge,encrypt\]'"):
        sealed_by(key_file(tmp_path))
