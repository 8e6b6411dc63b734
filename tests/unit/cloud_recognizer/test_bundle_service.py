"""How a device gets an encoder."""

from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from cloud_recognizer.bundles import service
from edge_encoder.refusal import Refusal
from mien.bundle import EDGE_FILES, Bundle, load_bundle
from mien.identity import Role
from mien.v1 import bundle_pb2 as pb
from mien.v1.bundle_pb2_grpc import BundleServiceStub
from tests.support.certificates import Authority, channel, recognizer
from tests.support.raw_http2 import HEADERS, raw_connection
from tests.support.recognizer import eventually, running_recognizer
from tests.support.reseal import reseal
from tests.support.tiny_bundle import EXPRESSIONS, make_tiny_bundle

if TYPE_CHECKING:  # a type only, there is no such class at run time
    from mien.v1.bundle_pb2_grpc import BundleServiceAsyncStub


async def download(
    stub: "BundleServiceAsyncStub", bundle_id: str, folder: Path
) -> list[pb.FileHeader]:
    """Write what comes, as a device would; returns the headers."""
    headers: list[pb.FileHeader] = []
    call = stub.DownloadEncoder(pb.DownloadEncoderRequest(bundle_id=bundle_id), timeout=60)
    async for response in call:
        if response.HasField("file"):
            headers.append(response.file)
            (folder / response.file.name).write_bytes(b"")
        else:
            assert 0 < len(response.piece) <= 65536
            with (folder / headers[-1].name).open("ab") as stream:
                stream.write(response.piece)
    return headers


async def test_bundles_are_listed_with_the_preferred_one_first(
    bundles: Path, bundle: Bundle, older: Bundle
) -> None:
    async with running_recognizer(bundles) as running:
        response = await BundleServiceStub(running.channel).ListBundles(pb.ListBundlesRequest())
    assert [
        (summary.bundle_id, summary.name, summary.preferred) for summary in response.bundles
    ] == [(bundle.bundle_id, "tiny", True), (older.bundle_id, "older", False)]
    for summary, listed in zip(response.bundles, (bundle, older), strict=True):
        assert tuple(summary.expressions) == EXPRESSIONS
        assert summary.encoder_bytes == sum(
            (listed.folder / name).stat().st_size for name in EDGE_FILES
        )


async def test_a_downloaded_encoder_is_a_bundle_a_device_can_load(
    bundles: Path, bundle: Bundle, tmp_path: Path
) -> None:
    async with running_recognizer(bundles) as running:
        stub = BundleServiceStub(running.channel)
        headers = await download(stub, bundle.bundle_id, tmp_path)
    assert [header.name for header in headers] == list(EDGE_FILES)
    assert headers[0].sha256 == bundle.bundle_id
    for header in headers:
        assert header.size_bytes == (tmp_path / header.name).stat().st_size
    loaded = load_bundle(tmp_path, EDGE_FILES, bundle.bundle_id)
    assert loaded.manifest == bundle.manifest


async def test_large_files_come_in_pieces(tmp_path: Path, bundle: Bundle) -> None:
    large = bytes(range(256)) * 800
    served = reseal(tmp_path / "served", bundle, analysis_onnx=large)
    (tmp_path / "got").mkdir()
    async with running_recognizer(tmp_path / "served") as running:
        stub = BundleServiceStub(running.channel)
        await download(stub, served.bundle_id, tmp_path / "got")
    assert (tmp_path / "got" / "analysis.onnx").read_bytes() == large


async def test_a_bundle_that_is_not_served_is_not_found(bundles: Path) -> None:
    async with running_recognizer(bundles) as running:
        stub = BundleServiceStub(running.channel)
        for bundle_id in ("", "f" * 64, "../tiny"):
            call = stub.DownloadEncoder(pb.DownloadEncoderRequest(bundle_id=bundle_id))
            assert await call.code() is grpc.StatusCode.NOT_FOUND


async def test_a_file_that_was_changed_while_serving_is_not_sent(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path / "served")
    async with running_recognizer(tmp_path / "served") as running:
        (bundle.folder / "analysis.onnx").write_bytes(b"something else")
        stub = BundleServiceStub(running.channel)
        (tmp_path / "got").mkdir()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await download(stub, bundle.bundle_id, tmp_path / "got")
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert str(tmp_path) not in (caught.value.details() or "")
    assert [path.name for path in (tmp_path / "got").iterdir()] == ["manifest.json"]


async def refusal(stub: "BundleServiceAsyncStub", bundle_id: str, folder: Path) -> Refusal:
    """How a download is refused for want of room."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await download(stub, bundle_id, folder)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    return Refusal.of(caught.value)


async def test_a_download_waits_for_those_that_stand_still_no_longer_than_it_is_worth(
    bundles: Path, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "MAX_DOWNLOADS", 1)
    monkeypatch.setattr(service, "WAIT_S", 0.1)
    request = pb.DownloadEncoderRequest(bundle_id=bundle.bundle_id).SerializeToString()
    async with running_recognizer(bundles) as running:
        stub = BundleServiceStub(running.channel)
        async with raw_connection(running.serving.port, initial_window=0) as raw:
            await raw.message(await raw.call("/mien.v1.BundleService/DownloadEncoder"), request)
            while (await raw.frame())[0] != HEADERS:  # until it has begun
                pass
            assert await refusal(stub, bundle.bundle_id, tmp_path) == Refusal("overloaded", 1.0)
            assert running.sample("turned_away_total", bound="downloads") == 1
        # Who stood still is gone, and with it what it held.
        monkeypatch.setattr(service, "WAIT_S", 30.0)
        assert await download(stub, bundle.bundle_id, tmp_path)


async def test_one_devices_downloads_take_no_other_devices_turn(
    tmp_path: Path, bundle: Bundle
) -> None:
    served = reseal(tmp_path / "served", bundle, analysis_onnx=bytes(4 << 20))
    (tmp_path / "got").mkdir()
    authority = Authority.made(tmp_path / "certificates")
    async with (
        recognizer(tmp_path / "served", authority) as running,
        channel(running.serving.port, authority.client(Role.DEVICE, "slow")) as slow,
        channel(running.serving.port, authority.client(Role.DEVICE, "door")) as door,
    ):
        stub = BundleServiceStub(slow)
        request = pb.DownloadEncoderRequest(bundle_id=served.bundle_id)
        unread = [stub.DownloadEncoder(request, timeout=60) for _ in range(2)]
        for call in unread:
            await call.read()  # and no more, so that the rest stands still
        refused = await refusal(stub, served.bundle_id, tmp_path / "got")
        assert refused == Refusal("share_taken", 1.0)
        await eventually(lambda: running.sample("turned_away_total", bound="share") == 1)
        await download(BundleServiceStub(door), served.bundle_id, tmp_path / "got")
        for call in unread:
            call.cancel()
