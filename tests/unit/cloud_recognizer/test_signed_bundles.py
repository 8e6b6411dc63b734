"""A recognizer that trusts keys: what is not signed by them is never in service."""

import logging
import shutil
from pathlib import Path

import pytest

from mien.bundle import Bundle
from mien.errors import BundleSignatureError, ConfigError, UnsignedBundleError
from mien.signing import SIGNATURES, sign
from tests.support.keys import Signer, make_signer
from tests.support.recognizer import eventually, running_recognizer
from tests.support.repository import is_served, listed, watching


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return make_signer(tmp_path)


@pytest.fixture
def signed(repository: Path, first: Bundle, signer: Signer) -> Path:
    """A repository whose one bundle is signed."""
    sign(first.folder, first.bundle_id, signer.private)
    return repository


async def test_a_recognizer_starts_with_what_is_signed_and_not_with_what_is_not(
    repository: Path, first: Bundle, signer: Signer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with pytest.raises(UnsignedBundleError):
        async with watching(repository, bundle_keys=signer.folder):
            pass
    sign(first.folder, first.bundle_id, signer.private)
    async with watching(repository, bundle_keys=signer.folder) as running:
        assert running.serving.bundle_id == first.bundle_id
    assert f"one of the keys {signer.name}" in caplog.text


async def test_without_keys_the_log_says_once_that_nobody_need_sign(
    repository: Path, first: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_recognizer(repository) as running:
        assert running.serving.bundle_id == first.bundle_id
    said = [record for record in caplog.records if "bundle_keys" in record.getMessage()]
    assert [record.levelname for record in said] == ["WARNING"]


async def test_an_empty_folder_of_keys_is_a_wrong_setting(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="bundle_keys"):
        async with running_recognizer(repository, bundle_keys=tmp_path):
            pass


async def test_a_bundle_that_comes_unsigned_is_refused_counted_and_taken_once_it_is_signed(
    signed: Path,
    first: Bundle,
    second: Bundle,
    signer: Signer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with watching(signed, bundle_keys=signer.folder) as running:
        shutil.copytree(second.folder, signed / "second")
        unsigned = UnsignedBundleError.code
        await eventually(lambda: running.sample("refused_bundles_total", code=unsigned) == 1)
        assert await listed(running) == [first.bundle_id]
        assert f"bundle {second.bundle_id[:12]} is not signed" in caplog.text
        sign(signed / "second", second.bundle_id, signer.private)
        await eventually(lambda: is_served(running, second))
        assert running.sample("refused_bundles_total", code=unsigned) == 1


async def test_a_bundle_whose_signature_goes_bad_leaves_the_service(
    signed: Path, first: Bundle, second: Bundle, signer: Signer
) -> None:
    sign(second.folder, second.bundle_id, signer.private)
    shutil.copytree(second.folder, signed / "second")
    async with watching(signed, bundle_keys=signer.folder) as running:
        await eventually(lambda: is_served(running, second))
        # Right in form, and of another bundle.
        shutil.copy(first.folder / SIGNATURES, signed / "second" / SIGNATURES)
        await eventually(lambda: not is_served(running, second))
        assert await listed(running) == [first.bundle_id]
        code = BundleSignatureError.code
        await eventually(lambda: running.sample("refused_bundles_total", code=code) == 1)
