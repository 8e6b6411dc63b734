"""Signatures of bundles: what is trusted, what is refused, and that the id stays."""

import base64
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mien.bundle import Bundle, load_bundle
from mien.cli.main import main
from mien.errors import BundleSignatureError, ConfigError, UnsignedBundleError
from mien.exit_codes import ExitCode
from mien.signing import (
    MAX_SIGNATURES,
    MAX_SIGNATURES_BYTES,
    SIGNATURES,
    TrustedKeys,
    parse_signatures,
    read_signatures,
    sign,
)
from tests.support.keys import Signer, make_signer
from tests.support.tiny_bundle import make_tiny_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_tiny_bundle(tmp_path / "bundles" / "tiny")


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return make_signer(tmp_path, "ours")


@pytest.fixture
def other(tmp_path: Path) -> Signer:
    return make_signer(tmp_path, "theirs")


def signed(bundle: Bundle, *signers: Signer) -> Path:
    for each in signers:
        assert sign(bundle.folder, bundle.bundle_id, each.private) == each.name
    return bundle.folder


def test_a_signed_bundle_is_loaded_and_has_the_id_it_had(bundle: Bundle, signer: Signer) -> None:
    loaded = load_bundle(signed(bundle, signer), files=None, keys=signer.trusted)
    assert loaded.bundle_id == bundle.bundle_id


def test_an_unsigned_bundle_is_refused_only_where_keys_are_trusted(
    bundle: Bundle, signer: Signer
) -> None:
    assert load_bundle(bundle.folder).bundle_id == bundle.bundle_id
    with pytest.raises(UnsignedBundleError, match=signer.name):
        load_bundle(bundle.folder, keys=signer.trusted)


def test_a_bundle_that_others_have_signed_is_refused(
    bundle: Bundle, signer: Signer, other: Signer
) -> None:
    with pytest.raises(BundleSignatureError, match=f"signed by {other.name}"):
        load_bundle(signed(bundle, other), keys=signer.trusted)


def test_one_trusted_key_of_several_signatures_is_enough(
    bundle: Bundle, signer: Signer, other: Signer
) -> None:
    folder = signed(bundle, other, signer, signer)
    assert set(parse_signatures(read_signatures(folder))) == {signer.name, other.name}
    for each in (signer, other):
        assert load_bundle(folder, keys=each.trusted).bundle_id == bundle.bundle_id


def test_the_signature_of_one_bundle_is_none_of_another(
    bundle: Bundle, signer: Signer, tmp_path: Path
) -> None:
    another = make_tiny_bundle(tmp_path / "bundles" / "another", name="another")
    shutil.copy(signed(bundle, signer) / SIGNATURES, another.folder)
    with pytest.raises(BundleSignatureError, match="is wrong"):
        load_bundle(another.folder, keys=signer.trusted)


def test_a_signature_is_checked_before_the_manifest_is_parsed(
    bundle: Bundle, signer: Signer
) -> None:
    (signed(bundle, signer) / "manifest.json").write_bytes(b"[" * 100_000)
    with pytest.raises(BundleSignatureError):
        load_bundle(bundle.folder, keys=signer.trusted)


def test_every_changed_bit_of_a_signature_is_refused(bundle: Bundle, signer: Signer) -> None:
    good = parse_signatures((signed(bundle, signer) / SIGNATURES).read_bytes())[signer.name]
    keys = signer.trusted
    for position in range(8 * len(good)):
        changed = bytearray(good)
        changed[position // 8] ^= 1 << position % 8
        line = f"ed25519 {signer.name} {base64.b64encode(changed).decode()}\n".encode()
        with pytest.raises(BundleSignatureError, match="is wrong"):
            keys.check(bundle.bundle_id, line)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_manifest_sig_or_refused(data: bytes) -> None:
    try:
        found = parse_signatures(data)
    except BundleSignatureError:
        return
    assert found == {}
    assert not data.strip()


LINE = f"ed25519 {'0' * 16} {base64.b64encode(bytes(64)).decode()}\n"


@pytest.mark.parametrize(
    "text",
    [
        LINE + LINE,
        LINE.replace("ed25519", "ed448"),
        LINE.replace("==", ""),
        LINE + "more\n",
        "".join(LINE.replace("0" * 16, f"{n:016x}") for n in range(MAX_SIGNATURES + 1)),
        "\n" * (MAX_SIGNATURES_BYTES + 1),
    ],
)
def test_a_manifest_sig_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(BundleSignatureError):
        parse_signatures(text.encode())


def test_a_manifest_sig_that_is_too_large_or_no_file_is_refused(
    bundle: Bundle, signer: Signer
) -> None:
    path = bundle.folder / SIGNATURES
    path.write_bytes(b"x" * (MAX_SIGNATURES_BYTES + 1))
    with pytest.raises(BundleSignatureError, match="more than"):
        load_bundle(bundle.folder, keys=signer.trusted)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(BundleSignatureError, match="not a file"):
        load_bundle(bundle.folder, keys=signer.trusted)


def test_keys_that_are_none_are_named_and_not_shown(
    signer: Signer, bundle: Bundle, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="bundle_keys"):
        TrustedKeys.load(tmp_path / "nothing")
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    shutil.copy(signer.private, wrong / "private.pub")  # the wrong half
    with pytest.raises(ConfigError) as caught:
        TrustedKeys.load(wrong)
    secret = signer.private.read_text().splitlines()[1]
    assert "private.pub" in str(caught.value)
    assert secret not in str(caught.value)
    with pytest.raises(ConfigError, match="no key"):
        sign(bundle.folder, bundle.bundle_id, signer.folder / "ours.pub")


def test_a_private_key_is_for_its_owner_alone_and_is_never_overwritten(signer: Signer) -> None:
    assert stat.S_IMODE(signer.private.stat().st_mode) == 0o600
    before = signer.private.read_bytes()
    assert main(["bundles", "new-key", str(signer.private)]) == ExitCode.USAGE
    assert signer.private.read_bytes() == before


def test_the_commands_make_a_key_sign_and_verify(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key, trusted = tmp_path / "release", tmp_path / "trusted"
    repository = ["bundles", "--repository", str(bundle.folder.parent)]
    verify = [*repository, "verify", "--bundle_keys", str(trusted)]
    trusted.mkdir()
    assert main(["bundles", "new-key", str(key)]) == ExitCode.OK
    shutil.move(f"{key}.pub", trusted)
    assert main(verify) == ExitCode.BUNDLE
    assert main([*repository, "sign", "tiny", "--key", str(key)]) == ExitCode.OK
    assert main(verify) == ExitCode.OK
    assert main([*verify, bundle.bundle_id[:8]]) == ExitCode.OK
    said = capsys.readouterr().out
    assert f"{bundle.bundle_id[:12]} (tiny): signed by key" in said
    assert key.read_text().splitlines()[1] not in said


def test_a_damaged_bundle_is_neither_signed_nor_verified(
    bundle: Bundle, signer: Signer, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = ["bundles", "--repository", str(bundle.folder.parent)]
    signed(bundle, signer)
    (bundle.folder / "classifier.onnx").write_bytes(b"another")
    verify = [*repository, "verify", "--bundle_keys", str(signer.folder)]
    assert main([*repository, "sign", "tiny", "--key", str(signer.private)]) == ExitCode.BUNDLE
    assert main(verify) == ExitCode.BUNDLE
    assert "classifier.onnx" in capsys.readouterr().err


def test_loading_without_keys_never_imports_cryptography(bundle: Bundle) -> None:
    script = (
        "import sys; from pathlib import Path; from mien.bundle import load_bundle\n"
        "load_bundle(Path(sys.argv[1]))\n"
        "sys.exit('cryptography' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script, str(bundle.folder)], check=True, timeout=60)
