"""The encoders of a server's bundles, fetched once and kept.

What a server sends (edge_encoder.encoder_download) is a bundle only when every hash says so:
manifest.json must hash to the bundle id, and the manifest holds the hashes of the other files.
"""

import asyncio
import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edge_encoder.dialling import PLAIN, Dialler
from edge_encoder.encoder_download import (
    DOWNLOAD_TIMEOUT_S,
    BusyError,
    connected,
    download,
    promoted,
)
from edge_encoder.kept_encoders import kept, last_used, make_room, mark_used
from edge_encoder.servers import Servers, Target
from mien.backoff import Backoff
from mien.bundle import EDGE_FILES, Bundle, load_bundle
from mien.errors import BundleError, BundleHashError, UnavailableError
from mien.folder_lock import FolderLock
from mien.signing import TrustedKeys

if TYPE_CHECKING:  # a name of the type stubs only
    from mien.v1.bundle_pb2_grpc import BundleServiceAsyncStub

_log = logging.getLogger(__name__)

_PARTIAL: Final = ".partial-"


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

    timeout_s: how long to look for a server that is there; each is tried once in any case. One that
    is busy with a fleet's downloads is there: who has no encoder yet comes again until it has. What
    was downloaded before a connection broke is not downloaded again, from whichever server.
    keys: those of which one must have signed it; None: it need not be signed.
    goes_on: whether the device runs without a server, too. It then begins, where none answers, with
    the encoder that it used last, and learns from the next Welcome which one is wanted.
    Raises UnavailableError when none is, BundleError for files that are not the bundle's and for
    what no trusted key has signed.
    """
    if bundle_id is not None and (found := await asyncio.to_thread(kept, cache, bundle_id, keys)):
        return found
    clock, backoff = asyncio.get_running_loop().time, Backoff(longest_s=1.0)
    there_s, walk = clock(), servers.walk()
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
            busy = error if isinstance(error, BusyError) else None
            asked_s = busy.retry_after_s if busy else 0.0
            if busy and bundle_id is None:
                there_s = clock()
                _log.warning("%s; it is asked again", busy)
            elif round_is_over and clock() - there_s >= timeout_s:
                raise UnavailableError(
                    f"no recognizer at {servers} within {timeout_s:g} s (--give_up_s): {error}. "
                    "Is mien-cloud running there?"
                ) from None
            await asyncio.sleep(asked_s + backoff.next_s() if round_is_over else backoff.soon_s())
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
    async with connected(target, dialler) as stub:
        wanted = bundle_id or await promoted(stub)
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
            await download(stub, bundle_id, partial, sum(begun.values()), keys)
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
