"""Fetching the encoder: once, whole, and only if it is what its hashes say."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from edge_encoder.encoder_cache import fetch_encoder
from mien.bundle import EDGE_FILES, Bundle
from mien.errors import BundleError, ManifestError, ProtocolError, UnavailableError
from mien.v1 import bundle_pb2 as pb
from mien.v1.bundle_pb2_grpc import BundleServiceServicer, add_BundleServiceServicer_to_server
from tests.support.recognizer import running_recognizer

PATIENCE_S = 60.0
Responses = list[pb.DownloadEncoderResponse]


def header(name: str, size: int) -> pb.DownloadEncoderResponse:
    return pb.DownloadEncoderResponse(file=pb.FileHeader(name=name, size_bytes=size))


def piece(data: bytes) -> pb.DownloadEncoderResponse:
    return pb.DownloadEncoderResponse(piece=data)


def encoder(bundle: Bundle) -> Responses:
    """What an honest server sends."""
    sent = []
    for name in EDGE_FILES:
        data = bundle.read(name)
        sent += [header(name, len(data)), piece(data)]
    return sent


class Server(BundleServiceServicer):
    """Sends what the test says, and counts."""

    def __init__(self, bundle_id: str, responses: Responses) -> None:
        self.bundle_id, self.responses = bundle_id, responses
        self.downloads = 0

    async def ListBundles(  # type: ignore[override]  # noqa: N802
        self, request: object, context: object
    ) -> pb.ListBundlesResponse:
        other = pb.BundleSummary(bundle_id="0" * 64)
        ours = pb.BundleSummary(bundle_id=self.bundle_id, preferred=True)
        return pb.ListBundlesResponse(bundles=[other, ours])

    async def DownloadEncoder(  # type: ignore[override]  # noqa: N802
        self, request: pb.DownloadEncoderRequest, context: object
    ) -> AsyncIterator[pb.DownloadEncoderResponse]:
        assert request.bundle_id == self.bundle_id
        self.downloads += 1
        for response in self.responses:
            yield response


@asynccontextmanager
async def bundle_server(service: Server) -> AsyncIterator[str]:
    server = grpc.aio.server()
    add_BundleServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def test_a_recognizer_s_encoder_is_fetched_and_kept(bundle: Bundle, tmp_path: Path) -> None:
    cache = tmp_path / "not" / "made" / "yet"
    async with running_recognizer(bundle.folder) as server:
        fetched = await fetch_encoder(f"127.0.0.1:{server.serving.port}", cache, PATIENCE_S)
    assert fetched.bundle_id == bundle.bundle_id
    assert fetched.folder == cache / bundle.bundle_id
    assert sorted(path.name for path in fetched.folder.iterdir()) == sorted(EDGE_FILES)
    assert list(cache.iterdir()) == [fetched.folder]  # nothing half-finished is left


async def test_what_is_kept_is_not_fetched_again(bundle: Bundle, tmp_path: Path) -> None:
    service = Server(bundle.bundle_id, encoder(bundle))
    async with bundle_server(service) as address:
        for _ in range(3):
            await fetch_encoder(address, tmp_path, PATIENCE_S)
    assert service.downloads == 1


@pytest.mark.parametrize("name", EDGE_FILES)
async def test_what_was_damaged_on_disk_is_fetched_again(
    bundle: Bundle, tmp_path: Path, name: str
) -> None:
    service = Server(bundle.bundle_id, encoder(bundle))
    async with bundle_server(service) as address:
        kept = await fetch_encoder(address, tmp_path, PATIENCE_S)
        (kept.folder / name).write_bytes(b"damaged")
        await fetch_encoder(address, tmp_path, PATIENCE_S)
    assert service.downloads == 2
    assert kept.read(name) == bundle.read(name)


def changed(bundle: Bundle, name: str) -> Responses:
    """An encoder of which one file is another."""
    return [
        piece(response.piece[:-1] + b"!")
        if response.piece and before.file.name == name
        else response
        for before, response in zip(
            [header("", 0), *encoder(bundle)], encoder(bundle), strict=False
        )
    ]


@pytest.mark.parametrize("name", EDGE_FILES)
async def test_a_file_that_is_not_the_bundle_s_is_refused(
    bundle: Bundle, tmp_path: Path, name: str
) -> None:
    service = Server(bundle.bundle_id, changed(bundle, name))
    async with bundle_server(service) as address:
        with pytest.raises(BundleError):
            await fetch_encoder(address, tmp_path, PATIENCE_S)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "responses",
    [
        [header("../evil.onnx", 4), piece(b"evil")],
        [header("/etc/evil", 4), piece(b"evil")],
        [header("classifier.onnx", 4), piece(b"evil")],
        [header("manifest.json", 1 << 40)],
        [header("manifest.json", 3), piece(b"evil")],
        [piece(b"evil")],
        [],
    ],
    ids=["up", "absolute", "not an encoder's", "huge", "longer", "nameless", "nothing"],
)
async def test_what_is_no_encoder_is_refused(
    bundle: Bundle, tmp_path: Path, responses: Responses
) -> None:
    cache = tmp_path / "cache"
    async with bundle_server(Server(bundle.bundle_id, responses)) as address:
        with pytest.raises(BundleError):
            await fetch_encoder(address, cache, PATIENCE_S)
    assert list(tmp_path.iterdir()) == [cache]
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("bundle_id", ["", "../../..", "F" * 64])
async def test_a_bundle_id_that_is_none_never_becomes_a_path(
    tmp_path: Path, bundle_id: str
) -> None:
    async with bundle_server(Server(bundle_id, [])) as address:
        with pytest.raises(ManifestError, match="bundle id that is none"):
            await fetch_encoder(address, tmp_path, PATIENCE_S)


async def test_a_server_that_is_not_there_is_waited_for_and_then_given_up(tmp_path: Path) -> None:
    async with bundle_server(Server("", [])) as address:
        pass
    with pytest.raises(UnavailableError, match=rf"no recognizer at {address} within 0\.1 s"):
        await fetch_encoder(address, tmp_path, 0.1)


async def test_a_server_without_bundles_is_no_recognizer(tmp_path: Path) -> None:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    with pytest.raises(ProtocolError, match="UNIMPLEMENTED"):
        await fetch_encoder(f"127.0.0.1:{port}", tmp_path, PATIENCE_S)
    await server.stop(None)
