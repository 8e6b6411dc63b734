"""The encoders of a server's bundles, fetched once and kept.

What a server sends is a bundle only when every hash says so: manifest.json must hash to the
bundle id, and the manifest holds the hashes of the other files. Where keys are trusted, one of them
must have signed the id, and the signature is looked at before anything of the bundle is taken.
"""

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import grpc

from edge_encoder.dialling import PLAIN, Dialler
from edge_encoder.kept_encoders import kept, last_used, make_room, mark_used
from edge_encoder.servers import Servers, Target
from mien.backoff import Backoff
from mien.bundle import EDGE_FILES, MANIFEST, Bundle, load_bundle
from mien.errors import (
    BundleError,
    BundleHashError,
    ManifestError,
    ProtocolError,
    UnavailableError,
    UnknownBundleError,
)
from mien.folder_lock import FolderLock
from mien.manifest import MAX_FILE_BYTES
from mien.signing import MAX_SIGNATURES_BYTES, SIGNATURES, TrustedKeys
from mien.v1 import bundle_pb2 as pb
from mien.v1.bundle_pb2_grpc import BundleServiceStub

if TYPE_CHECKING:  # a name of the type stubs only
    from mien.v1.bundle_pb2_grpc import BundleServiceAsyncStub

_log = logging.getLogger(__name__)

DOWNLOAD_TIMEOUT_S: Final = 120.0
CONNECT_TIMEOUT_S: Final = 5.0
_PARTIAL: Final = ".partial-"
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


async def fetch_encoder(
    servers: Servers,
    cache: Path,
    timeout_s: float,
    bundle_id: str | None = None,
    keys: TrustedKeys | None = None,
    dialler: Dialler = PLAIN,
    *,
    goes_on: bool = False,
) -> Bundle:
    """A bundle's encoder from `cache`, or downloaded into it; without an id the promoted one's.

    timeout_s: how long to look for a server that is there; each is tried once in any case. What was
    downloaded before a connection broke is not downloaded again, from whichever server.
    keys: those of which one must have signed it; None: it need not be signed.
    goes_on: whether the device runs without a server, too. It then begins, where none answers, with
    the encoder that it used last, and learns from the next Welcome which one is wanted.
    Raises UnavailableError when none is, BundleError for files that are not the bundle's and for
    what no trusted key has signed.
    """
    if bundle_id is not None and (found := await asyncio.to_thread(kept, cache, bundle_id, keys)):
        return found
    clock, backoff = asyncio.get_running_loop().time, Backoff(longest_s=1.0)
    began_s, walk = clock(), servers.walk()
    target, _ = await walk.advance()
    while True:
        try:
            bundle = await _fetched(target, cache, bundle_id, keys, dialler)
        except UnavailableError as error:
            target, round_is_over = await walk.advance()
            begins = round_is_over and goes_on and bundle_id is None
            if begins and (found := await asyncio.to_thread(last_used, cache, keys)):
                _log.warning("beginning with bundle %s: %s", found.bundle_id[:12], error)
                return found
            if round_is_over and clock() - began_s >= timeout_s:
                raise UnavailableError(
                    f"no recognizer at {servers} within {timeout_s:g} s (--give_up_s): {error}. "
                    "Is mien-cloud running there?"
                ) from None
            await asyncio.sleep(backoff.next_s() if round_is_over else backoff.soon_s())
        else:
            servers.begin_at(target)
            return bundle


async def _fetched(
    target: Target,
    cache: Path,
    bundle_id: str | None,
    keys: TrustedKeys | None,
    dialler: Dialler,
) -> Bundle:
    async with _connected(target, dialler) as stub:
        wanted = bundle_id or await _promoted(stub)
        try:
            if found := await asyncio.to_thread(kept, cache, wanted, keys):
                return found
            cache.mkdir(parents=True, exist_ok=True)
            lock = FolderLock(cache, DOWNLOAD_TIMEOUT_S)
            await asyncio.to_thread(lock.acquire)
            try:
                # Another process may have been quicker.
                found = await asyncio.to_thread(kept, cache, wanted, keys)
                return found or await _downloaded(stub, cache, wanted, keys)
            finally:
                lock.release()
        except OSError as error:
            raise BundleHashError(f"the encoder cannot be kept in {cache}: {error}") from error


async def _downloaded(
    stub: "BundleServiceAsyncStub", cache: Path, bundle_id: str, keys: TrustedKeys | None
) -> Bundle:
    """Download an encoder, from where a broken download ended. The cache is locked meanwhile."""
    partial = cache / f"{_PARTIAL}{bundle_id}"
    await asyncio.to_thread(_tidy, cache, partial)
    while True:
        partial.mkdir(exist_ok=True)
        begun = _sizes(partial)
        try:
            await _download(stub, bundle_id, partial, sum(begun.values()), keys)
            await asyncio.to_thread(load_bundle, partial, EDGE_FILES, bundle_id, keys)
        except BundleError:
            await asyncio.to_thread(shutil.rmtree, partial, ignore_errors=True)
            if not begun:
                raise
            # What was here may have been damaged, with the power for instance: from the beginning.
            continue
        folder = cache / bundle_id
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        partial.rename(folder)
        await asyncio.to_thread(mark_used, folder)
        return await asyncio.to_thread(load_bundle, folder, EDGE_FILES, bundle_id, keys)


def _tidy(cache: Path, partial: Path) -> None:
    """Remove what broken downloads of others left, and make room for this one."""
    for other in cache.glob(f"{_PARTIAL}*"):
        if other != partial:
            shutil.rmtree(other, ignore_errors=True)
    make_room(cache)


def _sizes(partial: Path) -> dict[str, int]:
    """Bytes of the files that a download has begun, in the order they come."""
    sizes: dict[str, int] = {}
    for name in EDGE_FILES:
        path = partial / name
        if not path.is_file():
            break
        sizes[name] = path.stat().st_size
    return sizes


@asynccontextmanager
async def _connected(target: Target, dialler: Dialler) -> AsyncIterator["BundleServiceAsyncStub"]:
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
            code, details = error.code(), error.details()
            kind = UnavailableError if code in ELSEWHERE else ProtocolError
            raise kind(f"{target} did not give its bundle: {code.name}: {details}") from error


async def _ready(channel: grpc.aio.Channel, target: Target) -> None:
    """Until it is connected; `channel_ready` would go on trying where nothing listens."""
    while (state := channel.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
        if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
            raise UnavailableError(
                f"nothing answers at {target}, or it does not speak TLS as this device does"
            )
        await channel.wait_for_state_change(state)


async def _promoted(stub: "BundleServiceAsyncStub") -> str:
    response = await stub.ListBundles(pb.ListBundlesRequest(), timeout=DOWNLOAD_TIMEOUT_S)
    bundles = sorted(response.bundles, key=lambda bundle: not bundle.preferred)
    if not bundles:
        raise UnknownBundleError("the server serves no bundle")
    return bundles[0].bundle_id


async def _download(
    stub: "BundleServiceAsyncStub",
    bundle_id: str,
    folder: Path,
    offset_bytes: int,
    keys: TrustedKeys | None,
) -> None:
    """Add to the files what the server sends: only an encoder's, no more than declared."""
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
