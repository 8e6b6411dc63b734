"""One download of an encoder from one server: what is asked, and what of the answer is taken.

Where keys are trusted, one of them must have signed the bundle's id, and the signature is looked at
before anything of the bundle is taken.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import grpc

from edge_encoder.dialling import Dialler
from edge_encoder.refusal import Refusal
from edge_encoder.servers import Target
from mien.bundle import EDGE_FILES, MANIFEST
from mien.errors import (
    ManifestError,
    MienError,
    ProtocolError,
    UnavailableError,
    UnknownBundleError,
)
from mien.manifest import MAX_FILE_BYTES
from mien.signing import MAX_SIGNATURES_BYTES, SIGNATURES, TrustedKeys
from mien.v1 import bundle_pb2 as pb
from mien.v1.bundle_pb2_grpc import BundleServiceStub

if TYPE_CHECKING:  # a name of the type stubs only
    from mien.v1.bundle_pb2_grpc import BundleServiceAsyncStub

DOWNLOAD_TIMEOUT_S: Final = 120.0
CONNECT_TIMEOUT_S: Final = 5.0
DOWNLOAD_CHANNEL_OPTIONS: Final = (
    # Closed with its connection, whose bytes must not count as the stream's.
    ("grpc.use_local_subchannel_pool", 1),
)
# A server, or the way to it, that has gone; another one may do.
ELSEWHERE: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    }
)


class BusyError(UnavailableError):
    """A server that is there, and has no place for another download: it asks to come again.

    retry_after_s: how long it wants to be left alone.
    """

    code = "downloads_full"

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


@asynccontextmanager
async def connected(target: Target, dialler: Dialler) -> AsyncIterator["BundleServiceAsyncStub"]:
    """The bundle service of a server.

    Raises UnavailableError where another server may do, BusyError where this one may later.
    """
    async with dialler.channel(target, DOWNLOAD_CHANNEL_OPTIONS) as channel:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await _ready(channel, target)
        except TimeoutError:
            raise UnavailableError(
                f"{target} did not answer within {CONNECT_TIMEOUT_S:g} s"
            ) from None
        try:
            yield BundleServiceStub(channel)
        except grpc.aio.AioRpcError as error:
            raise _meaning_of(error, target) from error


def _meaning_of(error: grpc.aio.AioRpcError, target: Target) -> MienError:
    code = error.code()
    message = f"{target} did not give its bundle: {code.name}: {error.details()}"
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return BusyError(message, Refusal.of(error).retry_after_s)
    return UnavailableError(message) if code in ELSEWHERE else ProtocolError(message)


async def _ready(channel: grpc.aio.Channel, target: Target) -> None:
    """Until it is connected; `channel_ready` would go on trying where nothing listens."""
    while (state := channel.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
        if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
            raise UnavailableError(
                f"nothing answers at {target}, or it does not speak TLS as this device does"
            )
        await channel.wait_for_state_change(state)


async def promoted(stub: "BundleServiceAsyncStub") -> str:
    """The id of the bundle that the server would have devices use."""
    response = await stub.ListBundles(pb.ListBundlesRequest(), timeout=DOWNLOAD_TIMEOUT_S)
    bundles = sorted(response.bundles, key=lambda bundle: not bundle.preferred)
    if not bundles:
        raise UnknownBundleError("the server serves no bundle")
    return bundles[0].bundle_id


async def download(
    stub: "BundleServiceAsyncStub",
    bundle_id: str,
    folder: Path,
    offset_bytes: int,
    keys: TrustedKeys | None,
) -> None:
    """Add to the files in `folder` what the server sends from an offset in bytes over all of them.

    Only an encoder's files, no more than declared. Raises BundleError for anything else.
    """
    request = pb.DownloadEncoderRequest(bundle_id=bundle_id, offset_bytes=offset_bytes)
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
                if header.name == MANIFEST:
                    _take_signatures(folder, bundle_id, header.signatures, keys)
                if file:
                    file.close()
                file = (folder / header.name).open("ab")
                left = header.size_bytes - file.tell()
            elif file is None or len(response.piece) > left:
                raise ManifestError("the server sends more than it declared")
            else:
                left -= len(response.piece)
                file.write(response.piece)
    finally:
        if file:
            file.close()


def _take_signatures(
    folder: Path, bundle_id: str, signatures: bytes, keys: TrustedKeys | None
) -> None:
    """Keep what came beside the manifest, where a trusted key has signed or none is asked for."""
    if len(signatures) > MAX_SIGNATURES_BYTES:
        raise ManifestError(
            f"the server sends {len(signatures)} bytes of signatures, over {MAX_SIGNATURES_BYTES}"
        )
    if keys is not None:
        keys.check(bundle_id, signatures)
    (folder / SIGNATURES).unlink(missing_ok=True)
    if signatures:
        (folder / SIGNATURES).write_bytes(signatures)
