"""A recognizer that trusts keys: what is not signed by them is never in service."""

import logging
import shutil
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2

from cloud_recognizer.health import LIVENESS
from mien.bundle import Bundle
from mien.errors import BundleSignatureError, ConfigError, UnsignedBundleError
from mien.signing import SIGNATURES, sign
from tests.support.keys import Signer, make_signer
from tests.support.recognizer import (
    Device,
    eventually,
    health,
    hello,
    payload,
    running_recognizer,
)
from tests.support.repository import (
    eventually_async,
    hello_request,
    is_served,
    listed,
    look_again,
    watching,
)

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


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


@pytest.mark.parametrize("bad", ["another's", "none"])
async def test_the_last_bundle_leaves_too_and_is_back_once_it_is_signed_again(
    signed: Path,
    first: Bundle,
    second: Bundle,
    signer: Signer,
    caplog: pytest.LogCaptureFixture,
    bad: str,
) -> None:
    """No other start would take it. A stream that is open keeps it, as of any bundle that left."""
    sign(second.folder, second.bundle_id, signer.private)
    async with watching(signed, bundle_keys=signer.folder) as running:
        open_before = Device(running.stub)
        await open_before.open(hello(first, "before"))
        (first.folder / SIGNATURES).unlink()
        if bad == "another's":  # right in form
            shutil.copy(second.folder / SIGNATURES, first.folder / SIGNATURES)
        await eventually_async(lambda: health(running.channel), NOT_SERVING)
        assert await health(running.channel, LIVENESS) == SERVING, "no start mends a signature"
        assert await listed(running) == []
        assert "is signed as it must be: none is in service" in caplog.text
        kind = BundleSignatureError if bad == "another's" else UnsignedBundleError
        assert running.sample("refused_bundles_total", code=kind.code) == 1
        late = Device(running.stub)
        await late.call.write(hello_request(first, "late"))
        assert (await late.status())[0] is grpc.StatusCode.UNAVAILABLE
        await open_before.send(1, payload(first))
        assert (await open_before.close()).results[0].bundle_id == first.bundle_id
        await eventually(lambda: not is_served(running, first))
        (first.folder / SIGNATURES).unlink(missing_ok=True)
        sign(first.folder, first.bundle_id, signer.private)
        await eventually_async(lambda: health(running.channel), SERVING)
        assert await listed(running) == [first.bundle_id]


async def test_a_folder_that_vanishes_leaves_a_signed_bundle_in_service(
    signed: Path, first: Bundle, signer: Signer
) -> None:
    async with watching(signed, bundle_keys=signer.folder) as running:
        signed.rename(signed.with_name("elsewhere"))
        await look_again(running)
        assert await listed(running) == [first.bundle_id]
        assert await health(running.channel) == SERVING
