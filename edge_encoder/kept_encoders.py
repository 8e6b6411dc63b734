"""The encoders in a cache: looked up by their id or by their last use, and bounded in number."""

import contextlib
import os
import shutil
import time
from pathlib import Path
from typing import Final

from mien.bundle import EDGE_FILES, Bundle, load_bundle
from mien.errors import BundleError, BundleSignatureError, ManifestError
from mien.messages.ids import is_bundle_id
from mien.signing import TrustedKeys

# Encoders in a cache; beyond, the one that was not used for the longest time goes.
MAX_KEPT: Final = 8
# Two uses are further apart than any file system's clock is coarse.
_APART_NS: Final = 2_000_000_000


def kept(cache: Path, bundle_id: str, keys: TrustedKeys | None) -> Bundle | None:
    """The encoder that lies in the cache; one that was damaged on the disk is removed.

    One without a trusted signature stays until another takes its place: it may be of a time when
    other keys were trusted, or another process's that trusts them.
    Raises ManifestError for an id that is none.
    """
    if not is_bundle_id(bundle_id):
        raise ManifestError(f"the server names a bundle id that is none: {bundle_id[:80]!r}")
    folder = cache / bundle_id
    if not folder.is_dir():
        return None
    try:
        bundle = load_bundle(folder, EDGE_FILES, bundle_id, keys)
    except BundleSignatureError:
        return None
    except BundleError:
        shutil.rmtree(folder, ignore_errors=True)
        return None
    mark_used(folder)
    return bundle


def last_used(cache: Path, keys: TrustedKeys | None) -> Bundle | None:
    """Of the encoders that can be used, the one that was used last; None where there is none."""
    found = (kept(cache, folder.name, keys) for folder in _by_use(cache))
    return next((bundle for bundle in found if bundle is not None), None)


def mark_used(folder: Path) -> None:
    """It is the one that was used last, also where the clock was never set."""
    with contextlib.suppress(OSError):  # a cache that cannot be written can be read
        others = (used_ns for used_ns, other in _uses(folder.parent) if other != folder)
        used_ns = max(time.time_ns(), max(others, default=0) + _APART_NS)
        os.utime(folder, ns=(used_ns, used_ns))


def make_room(cache: Path) -> None:
    """Remove the encoders that were used least lately, so that there is room for one more."""
    for folder in _by_use(cache)[MAX_KEPT - 1 :]:
        shutil.rmtree(folder, ignore_errors=True)


def _by_use(cache: Path) -> list[Path]:
    """The folders of encoders, the one that was used last first."""
    return [folder for _, folder in sorted(_uses(cache), reverse=True)]


def _uses(cache: Path) -> list[tuple[int, Path]]:
    """When each was used last, in nanoseconds; of those that are there."""
    uses = []
    with contextlib.suppress(OSError):  # no cache yet, or none that can be read
        for folder in cache.iterdir():
            if is_bundle_id(folder.name):
                with contextlib.suppress(FileNotFoundError):  # another process was quicker
                    uses.append((folder.stat().st_mtime_ns, folder))
    return uses
