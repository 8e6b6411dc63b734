"""Fetching the encoder: once, whole, and only if it is what its hashes say."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from edge_encoder.encoder_cache import fetch_encoder
from edge_encoder.kept_encoders import MAX_KEPT
from edge_encoder.servers import Servers
from mien.bundle import EDGE_FILES, Bundle
from mien.errors import BundleError, ManifestError, ProtocolError, UnavailableError
from mien.v1 import bundle_pb2 as pb
from mien.v1.bundle_pb2_grpc import (
    BundleServiceServicer,
    BundleServiceStub,
    add_BundleServiceServicer_to_server,
)
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
    """Sends what the test says, and counts.

    goes_away: whether it breaks as one that is stopped. busy: how many downloads it refuses first.
    """

    goes_away = False
    busy = 0

    def __init__(self, bundle_id: str, responses: Responses) -> None:
        self.bundle_id, self.responses = bundle_id, responses
        self.downloads = 0
        self.offsets: list[int] = []
        self.breaks_after: int | None = None

    async def ListBundles(  # type: ignore[override]  # noqa: N802
        self, request: object, context: object
    ) -> pb.ListBundlesResponse:
        other = pb.BundleSummary(bundle_id="0" * 64)
        ours = pb.BundleSummary(bundle_id=self.bundle_id, preferred=True)
        return pb.ListBundlesResponse(bundles=[other, ours])

    async def DownloadEncoder(  # type: ignore[override]  # noqa: N802
        self,
        request: pb.DownloadEncoderRequest,
        context: grpc.aio.ServicerContext[pb.DownloadEncoderRequest, pb.DownloadEncoderResponse],
    ) -> AsyncIterator[pb.DownloadEncoderResponse]:
        assert request.bundle_id == self.bundle_id
        self.downloads += 1
        self.offsets.append(request.offset_bytes)
        if self.downloads <= self.busy:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "32 downloads run")
        skip = request.offset_bytes
        for number, response in enumerate(self.responses):
            if number == self.breaks_after:
                if self.goes_away:
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "the server stops")
                raise ConnectionError("the line is cut")
            if response.piece:
                skipped = min(skip, len(response.piece))
                skip -= skipped
                yield piece(response.piece[skipped:])
            else:
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
        servers = Servers((f"127.0.0.1:{server.serving.port}",))
        fetched = await fetch_encoder(servers, cache, PATIENCE_S)
    assert fetched.bundle_id == bundle.bundle_id
    assert fetched.folder == cache / bundle.bundle_id
    assert sorted(path.name for path in fetched.folder.iterdir()) == sorted(EDGE_FILES)
    assert list(cache.iterdir()) == [fetched.folder]  # nothing half-finished is left


async def test_what_is_kept_is_not_fetched_again(bundle: Bundle, tmp_path: Path) -> None:
    service = Server(bundle.bundle_id, encoder(bundle))
    async with bundle_server(service) as address:
        for _ in range(3):
            await fetch_encoder(Servers((address,)), tmp_path, PATIENCE_S)
    assert service.downloads == 1


@pytest.mark.parametrize("name", EDGE_FILES)
async def test_what_was_damaged_on_disk_is_fetched_again(
    bundle: Bundle, tmp_path: Path, name: str
) -> None:
    service = Server(bundle.bundle_id, encoder(bundle))
    async with bundle_server(service) as address:
        kept = await fetch_encoder(Servers((address,)), tmp_path, PATIENCE_S)
        (kept.folder / name).write_bytes(b"damaged")
        await fetch_encoder(Servers((address,)), tmp_path, PATIENCE_S)
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
            await fetch_encoder(Servers((address,)), tmp_path, PATIENCE_S)
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
            await fetch_encoder(Servers((address,)), cache, PATIENCE_S)
    assert list(tmp_path.iterdir()) == [cache]
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("responses_sent", [1, 2, 3, 4, 5])
async def test_a_download_that_breaks_goes_on_where_it_ended(
    bundle: Bundle, tmp_path: Path, responses_sent: int
) -> None:
    sent = encoder(bundle)
    service = Server(bundle.bundle_id, sent)
    service.breaks_after = responses_sent
    async with bundle_server(service) as address:
        with pytest.raises(ProtocolError):
            await fetch_encoder(Servers((address,)), tmp_path, PATIENCE_S)
        service.breaks_after = None
        fetched = await fetch_encoder(Servers((address,)), tmp_path, PATIENCE_S)
    assert service.offsets == [0, sum(len(response.piece) for response in sent[:responses_sent])]
    assert list(tmp_path.iterdir()) == [fetched.folder]


async def test_a_recognizer_sends_an_encoder_from_any_offset(
    bundle: Bundle, tmp_path: Path
) -> None:
    whole = b"".join(bundle.read(name) for name in EDGE_FILES)
    async with running_recognizer(bundle.folder) as server:
        stub = BundleServiceStub(server.channel)
        for offset in (0, 1, len(bundle.read("manifest.json")), len(whole) - 1, len(whole)):
            request = pb.DownloadEncoderRequest(bundle_id=bundle.bundle_id, offset_bytes=offset)
            responses = [x async for x in stub.DownloadEncoder(request, timeout=PATIENCE_S)]
            assert b"".join(response.piece for response in responses) == whole[offset:]
            assert [x.file.name for x in responses if x.HasField("file")] == list(EDGE_FILES)


async def test_a_part_that_was_damaged_is_downloaded_from_the_beginning(
    bundle: Bundle, tmp_path: Path
) -> None:
    partial = tmp_path / f".partial-{bundle.bundle_id}"
    partial.mkdir()
    (partial / "manifest.json").write_bytes(bytes(len(bundle.read("manifest.json"))))
    (tmp_path / f".partial-{'0' * 64}").mkdir()  # of a bundle that nobody wants any more
    service = Server(bundle.bundle_id, encoder(bundle))
    async with bundle_server(service) as address:
        fetched = await fetch_encoder(Servers((address,)), tmp_path, PATIENCE_S)
    assert service.offsets == [len(bundle.read("manifest.json")), 0]
    assert list(tmp_path.iterdir()) == [fetched.folder]


async def test_of_several_that_need_an_encoder_one_downloads_it(
    bundle: Bundle, tmp_path: Path
) -> None:
    service = Server(bundle.bundle_id, encoder(bundle))
    async with bundle_server(service) as address:
        fetches = [fetch_encoder(Servers((address,)), tmp_path, PATIENCE_S) for _ in range(4)]
        found = await asyncio.gather(*fetches)
    assert {one.bundle_id for one in found} == {bundle.bundle_id}
    assert service.downloads == 1


async def test_a_bundle_by_its_id_needs_no_server_once_it_is_kept(
    bundle: Bundle, tmp_path: Path
) -> None:
    async with bundle_server(Server(bundle.bundle_id, encoder(bundle))) as address:
        await fetch_encoder(Servers((address,)), tmp_path, PATIENCE_S, bundle.bundle_id)
    kept = await fetch_encoder(Servers((address,)), tmp_path, 0.1, bundle.bundle_id)
    assert kept.folder == tmp_path / bundle.bundle_id


async def test_the_encoder_not_used_for_longest_makes_room(bundle: Bundle, tmp_path: Path) -> None:
    for number in range(MAX_KEPT):
        folder = tmp_path / f"{number:064x}"
        folder.mkdir()
        os.utime(folder, (number, number))
    (tmp_path / "something else").mkdir()
    async with bundle_server(Server(bundle.bundle_id, encoder(bundle))) as address:
        await fetch_encoder(Servers((address,)), tmp_path, PATIENCE_S)
    expected = {f"{number:064x}" for number in range(1, MAX_KEPT)}
    found = {path.name for path in tmp_path.iterdir()}
    assert found == expected | {bundle.bundle_id, "something else"}


@pytest.mark.parametrize("bundle_id", ["", "../../..", "F" * 64])
async def test_a_bundle_id_that_is_none_never_becomes_a_path(
    tmp_path: Path, bundle_id: str
) -> None:
    async with bundle_server(Server(bundle_id, [])) as address:
        with pytest.raises(ManifestError, match="bundle id that is none"):
            await fetch_encoder(Servers((address,)), tmp_path, PATIENCE_S)


async def test_a_server_that_is_not_there_is_waited_for_and_then_given_up(tmp_path: Path) -> None:
    async with bundle_server(Server("", [])) as address:
        pass
    with pytest.raises(UnavailableError, match=rf"no recognizer at {address} within 0\.1 s"):
        await fetch_encoder(Servers((address,)), tmp_path, 0.1)


@pytest.mark.parametrize("timeout_s", [0.0, PATIENCE_S])
async def test_a_device_without_an_encoder_comes_again_to_a_server_that_is_busy(
    bundle: Bundle, tmp_path: Path, timeout_s: float
) -> None:
    service = Server(bundle.bundle_id, encoder(bundle))
    service.busy = 3
    async with bundle_server(service) as address:
        fetched = await fetch_encoder(Servers((address,)), tmp_path, timeout_s)
    assert fetched.bundle_id == bundle.bundle_id
    assert service.downloads == 4


async def test_who_wants_another_encoder_gives_up_on_a_busy_server(
    bundle: Bundle, tmp_path: Path
) -> None:
    service = Server(bundle.bundle_id, encoder(bundle))
    service.busy = 100
    async with bundle_server(service) as address:
        with pytest.raises(UnavailableError, match="RESOURCE_EXHAUSTED"):
            await fetch_encoder(Servers((address,)), tmp_path, 0.0, bundle.bundle_id)


async def test_a_server_without_bundles_is_no_recognizer(tmp_path: Path) -> None:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    with pytest.raises(ProtocolError, match="UNIMPLEMENTED"):
        await fetch_encoder(Servers((f"127.0.0.1:{port}",)), tmp_path, PATIENCE_S)
    await server.stop(None)


async def test_a_server_that_is_not_there_is_passed_over(bundle: Bundle, tmp_path: Path) -> None:
    async with bundle_server(Server("", [])) as dead:
        pass
    async with bundle_server(Server(bundle.bundle_id, encoder(bundle))) as address:
        for device_id in ("door", "yard", "gate"):  # whatever the order
            servers = Servers((dead, address), device_id)
            fetched = await fetch_encoder(servers, tmp_path / device_id, 0.0)
            assert fetched.bundle_id == bundle.bundle_id
            # The uplink begins where the encoder came from.
            begins_at, _ = await servers.walk().advance()
            assert begins_at.dial == address


async def test_a_download_that_one_server_broke_goes_on_at_another(
    bundle: Bundle, tmp_path: Path
) -> None:
    services = [Server(bundle.bundle_id, encoder(bundle)) for _ in range(2)]
    services[0].breaks_after, services[0].goes_away = 3, True
    async with bundle_server(services[0]) as breaks, bundle_server(services[1]) as whole:
        servers = Servers((breaks, whole))
        turn = [(await servers.targets(turn))[0].dial for turn in (0, 1)].index(breaks)
        servers.begin_at((await servers.targets(turn))[0])
        await fetch_encoder(servers, tmp_path, PATIENCE_S)
    begun = sum(len(response.piece) for response in encoder(bundle)[:3])
    assert (services[0].offsets, services[1].offsets) == ([0], [begun])
