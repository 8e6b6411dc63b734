"""How a device gets an encoder."""

from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from mien.bundle import EDGE_FILES, Bundle, load_bundle
from mien.v1 import bundle_pb2 as pb
from mien.v1.bundle_pb2_grpc import BundleServiceStub
from tests.support.recognizer import running_recognizer
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
