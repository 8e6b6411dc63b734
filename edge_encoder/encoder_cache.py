"""The encoder of the server's bundle, fetched once and kept.

What a server sends is a bundle only when every hash says so: manifest.json must hash to the
bundle id, and the manifest holds the hashes of the other files.
"""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import grpc

from mien.bundle import EDGE_FILES, Bundle, load_bundle
from mien.errors import (
    BundleError,
    BundleHashError,
    ManifestError,
    ProtocolError,
    UnavailableError,
    UnknownBundleError,
)
from mien.manifest import MAX_FILE_BYTES
from mien.v1 import bundle_pb2 as pb
from mien.v1.bundle_pb2_grpc import BundleServiceStub

if TYPE_CHECKING:  # a name of the type stubs only
    from mien.v1.bundle_pb2_grpc import BundleServiceAsyncStub

DOWNLOAD_TIMEOUT_S: Final = 120.0
CHANNEL_OPTIONS: Final = (
    # Closed with its connection, whose bytes must not count as the stream's.
    ("grpc.use_local_subchannel_pool", 1),
    # A server that is just starting is noticed within a second.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


async def fetch_encoder(server: str, cache: Path, timeout_s: float) -> Bundle:
    """The bundle the server prefers, from `cache`, or downloaded into it.

    timeout_s: how long to wait for the server to be there.
    Raises UnavailableError when it never is, BundleError for files that are not the bundle's.
    """
    async with _connected(server, timeout_s) as stub:
        bundle_id = await _preferred(stub)
        folder = cache / bundle_id
        if folder.is_dir():
            try:
                return await asyncio.to_thread(load_bundle, folder, EDGE_FILES, bundle_id)
            except BundleError:
                # Damaged on disk: fetch it again.
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=cache, prefix=".download-") as partial:
                await _download(stub, bundle_id, Path(partial))
                await asyncio.to_thread(load_bundle, Path(partial), EDGE_FILES, bundle_id)
                return await asyncio.to_thread(_keep, Path(partial), folder, bundle_id)
        except OSError as error:
            raise BundleHashError(f"the encoder cannot be kept in {cache}: {error}") from error


@asynccontextmanager
async def _connected(server: str, timeout_s: float) -> AsyncIterator["BundleServiceAsyncStub"]:
    async with grpc.aio.insecure_channel(server, CHANNEL_OPTIONS) as channel:
        try:
            async with asyncio.timeout(timeout_s):
                await channel.channel_ready()
        except TimeoutError:
            raise UnavailableError(
                f"no recognizer at {server} within {timeout_s:g} s (--give_up_s). "
                "Is mien-cloud running there?"
            ) from None
        try:
            yield BundleServiceStub(channel)
        except grpc.aio.AioRpcError as error:
            code, details = error.code(), error.details()
            kind = (
                UnavailableError
                if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
                else ProtocolError
            )
            raise kind(f"{server} did not give its bundle: {code.name}: {details}") from error


async def _preferred(stub: "BundleServiceAsyncStub") -> str:
    response = await stub.ListBundles(pb.ListBundlesRequest(), timeout=DOWNLOAD_TIMEOUT_S)
    bundles = sorted(response.bundles, key=lambda bundle: not bundle.preferred)
    if not bundles:
        raise UnknownBundleError("the server serves no bundle")
    bundle_id = bundles[0].bundle_id
    if len(bundle_id) != 64 or not all(digit in "0123456789abcdef" for digit in bundle_id):
        raise ManifestError(f"the server names a bundle id that is none: {bundle_id[:80]!r}")
    return bundle_id


async def _download(stub: "BundleServiceAsyncStub", bundle_id: str, folder: Path) -> None:
    """Write the files that the server sends: only an encoder's, no more than declared."""
    request = pb.DownloadEncoderRequest(bundle_id=bundle_id)
    file: BinaryIO | None = None
    left = 0
    try:
        async for response in stub.DownloadEncoder(request, timeout=DOWNLOAD_TIMEOUT_S):
            if response.WhichOneof("message") == "file":
                header = response.file
                if header.name not in EDGE_FILES or header.size_bytes > MAX_FILE_BYTES:
                    raise ManifestError(
                        f"the server sends {header.name[:80]!r} of {header.size_bytes} bytes, "
                        f"which is no part of an encoder ({', '.join(EDGE_FILES)})"
                    )
                if file:
                    file.close()
                file, left = (folder / header.name).open("wb"), header.size_bytes
            elif file is None or len(response.piece) > left:
                raise ManifestError("the server sends more than it declared")
            else:
                left -= len(response.piece)
                file.write(response.piece)
    finally:
        if file:
            file.close()


def _keep(partial: Path, folder: Path, bundle_id: str) -> Bundle:
    """Move a verified download to its place; another process may have been quicker."""
    target = partial / "encoder"
    target.mkdir()
    for name in EDGE_FILES:
        (partial / name).rename(target / name)
    try:
        target.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
    return load_bundle(folder, EDGE_FILES, bundle_id)
