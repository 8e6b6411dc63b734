"""Fetching an encoder where keys are trusted: nothing unsigned is taken, kept or used."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge_encoder.config import EdgeConfig
from edge_encoder.device import run
from edge_encoder.encoder_cache import fetch_encoder
from edge_encoder.servers import Servers
from mien.bundle import EDGE_FILES, Bundle, load_bundle
from mien.errors import BundleSignatureError, ManifestError, UnsignedBundleError
from mien.exit_codes import ExitCode
from mien.signing import MAX_SIGNATURES_BYTES, SIGNATURES, read_signatures, sign
from mien.v1 import bundle_pb2 as pb
from mien.v1.bundle_pb2_grpc import BundleServiceStub
from tests.support.keys import Signer, make_signer
from tests.support.recognizer import Running, running_recognizer
from tests.support.tiny_bundle import make_tiny_bundle
from tests.unit.edge_encoder.test_encoder_cache import PATIENCE_S, Server, bundle_server, encoder


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return make_signer(tmp_path / "keys", "ours")


@pytest.fixture
def served(tmp_path: Path) -> Bundle:
    """A bundle of the recognizer's own, to be signed or not."""
    return make_tiny_bundle(tmp_path / "served")


@pytest.fixture
async def recognizer(served: Bundle) -> AsyncIterator[Running]:
    async with running_recognizer(served.folder) as running:
        yield running


def at(recognizer: Running) -> Servers:
    return Servers((f"127.0.0.1:{recognizer.serving.port}",))


async def test_a_signed_encoder_is_fetched_verified_and_verified_again_from_the_cache(
    recognizer: Running, served: Bundle, signer: Signer, tmp_path: Path
) -> None:
    sign(served.folder, served.bundle_id, signer.private)  # while it is in service
    cache, keys = tmp_path / "cache", signer.trusted
    fetched = await fetch_encoder(at(recognizer), cache, PATIENCE_S, keys=keys)
    assert fetched.bundle_id == served.bundle_id
    names = {path.name for path in fetched.folder.iterdir()}
    assert names == {*EDGE_FILES, SIGNATURES}
    kept = load_bundle(fetched.folder, EDGE_FILES, served.bundle_id, keys)
    assert kept.bundle_id == served.bundle_id
    nowhere = Servers(("127.0.0.1:1",))
    again = await fetch_encoder(nowhere, cache, 0, served.bundle_id, keys)
    assert again.folder == fetched.folder


async def test_an_unsigned_encoder_is_refused_before_a_byte_of_it_is_kept(
    bundle: Bundle, signer: Signer, tmp_path: Path
) -> None:
    service = Server(bundle.bundle_id, encoder(bundle))
    async with bundle_server(service) as address:
        with pytest.raises(UnsignedBundleError, match="not signed"):
            await fetch_encoder(Servers((address,)), tmp_path / "cache", 0, keys=signer.trusted)
    assert list((tmp_path / "cache").iterdir()) == []


async def test_an_encoder_that_others_have_signed_is_refused(
    recognizer: Running, served: Bundle, signer: Signer, tmp_path: Path
) -> None:
    others = make_signer(tmp_path / "keys", "theirs")
    sign(served.folder, served.bundle_id, others.private)
    with pytest.raises(BundleSignatureError, match=others.name):
        await fetch_encoder(at(recognizer), tmp_path / "cache", 0, keys=signer.trusted)


async def test_signatures_that_are_too_long_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    responses = encoder(bundle)
    responses[0].file.signatures = b"\n" * (MAX_SIGNATURES_BYTES + 1)
    async with bundle_server(Server(bundle.bundle_id, responses)) as address:
        with pytest.raises(ManifestError, match="signatures"):
            await fetch_encoder(Servers((address,)), tmp_path, 0)


async def test_what_was_kept_unsigned_gets_its_signature_when_keys_are_trusted(
    recognizer: Running, served: Bundle, signer: Signer, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    kept = await fetch_encoder(at(recognizer), cache, PATIENCE_S)
    assert read_signatures(kept.folder) == b""
    with pytest.raises(UnsignedBundleError):
        await fetch_encoder(at(recognizer), cache, 0, served.bundle_id, signer.trusted)
    # It is not this process's to delete: another one may use it.
    assert load_bundle(kept.folder).bundle_id == served.bundle_id
    sign(served.folder, served.bundle_id, signer.private)
    await fetch_encoder(at(recognizer), cache, PATIENCE_S, served.bundle_id, signer.trusted)
    assert read_signatures(kept.folder) == read_signatures(served.folder)


async def test_a_device_that_trusts_keys_ends_with_the_bundle_s_exit_code_and_with_signed_runs(
    recognizer: Running, served: Bundle, signer: Signer, clip: Path, tmp_path: Path
) -> None:
    def config(**more: object) -> EdgeConfig:
        return EdgeConfig(
            str(clip),
            str(at(recognizer)),
            results=str(tmp_path / "results"),
            cache=tmp_path / "cache",
            bundle_keys=signer.folder,
            **more,  # type: ignore[arg-type]
        )

    for more in ({}, {"bundle": served.folder}):
        with pytest.raises(UnsignedBundleError):
            await run(config(**more))
    sign(served.folder, served.bundle_id, signer.private)
    for more in ({}, {"bundle": served.folder}):
        assert await run(config(**more)) == ExitCode.OK


async def test_an_old_device_gets_the_files_it_knows(recognizer: Running, served: Bundle) -> None:
    """Signatures ride on a header's field, which a device without it skips."""
    request = pb.DownloadEncoderRequest(bundle_id=served.bundle_id)
    stub = BundleServiceStub(recognizer.channel)
    sent = [response async for response in stub.DownloadEncoder(request, timeout=PATIENCE_S)]
    named = [response.file.name for response in sent if response.HasField("file")]
    assert named == list(EDGE_FILES)
