"""Which bundles lie in a folder, whole and right; only what has changed is hashed again."""

import os
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

from mien.bundle import Bundle, bundle_folders, load_bundle
from mien.errors import BundleError, BundleSignatureError, IncompleteBundleError
from mien.signing import TrustedKeys

# A bundle has at most 64 files; what else lies in its folder cannot cost more than this.
MAX_ENTRIES: Final = 256

Fingerprint = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True)
class Found:
    """What a look at the folder has shown.

    bundles: those that are whole, by id. wrong: what is new to report. incomplete: folders that
    are still being copied. distrusted: folders that are wrong for their signature.
    """

    bundles: dict[str, Bundle] = field(default_factory=dict)
    wrong: tuple[BundleError, ...] = ()
    incomplete: int = 0
    distrusted: frozenset[Path] = frozenset()


@dataclass
class _Seen:
    fingerprint: Fingerprint
    bundle: Bundle | None = None
    error: BundleError | None = None
    reported: bool = False


class BundleScanner:
    """Looks at a folder again and again, one thread at a time.

    A folder is wrong when its files say so and have not changed since the look before: a copy that
    goes on looks wrong, too, and is none.

    keys: those of which one must have signed a bundle; None: it need not be signed.
    """

    def __init__(self, folder: Path, keys: TrustedKeys | None = None) -> None:
        self._folder = folder
        self._keys = keys
        self._seen: dict[Path, _Seen] = {}

    def scan(self) -> Found:
        """Look once. Each wrong folder is reported once, and again only when it has changed."""
        before, self._seen = self._seen, {}
        wrong: list[BundleError] = []
        for folder in bundle_folders(self._folder):
            self._seen[folder] = self._look(folder, before.get(folder), wrong)
        looks = list(self._seen.values())
        # Of copies of one bundle the first by name is used, always the same.
        bundles = {x.bundle.bundle_id: x.bundle for x in reversed(looks) if x.bundle}
        incomplete = sum(isinstance(x.error, IncompleteBundleError) for x in looks)
        return Found(bundles, tuple(wrong), incomplete, self._distrusted())

    def _distrusted(self) -> frozenset[Path]:
        """Those that are reported, so that none counts whose signature is only being written."""
        return frozenset(
            folder
            for folder, seen in self._seen.items()
            if seen.reported and isinstance(seen.error, BundleSignatureError)
        )

    @property
    def problems(self) -> tuple[BundleError, ...]:
        """Why each folder that was not found to be a bundle is none, reported or not."""
        return tuple(seen.error for seen in self._seen.values() if seen.error)

    def _look(self, folder: Path, before: _Seen | None, wrong: list[BundleError]) -> _Seen:
        fingerprint = _fingerprint(folder)
        if before is not None and before.fingerprint == fingerprint:
            error = before.error
            if error and not before.reported and not isinstance(error, IncompleteBundleError):
                before.reported = True
                wrong.append(error)
            return before
        try:
            return _Seen(fingerprint, load_bundle(folder, files=None, keys=self._keys))
        except BundleError as error:
            return _Seen(fingerprint, error=error)


def _fingerprint(folder: Path) -> Fingerprint:
    """(name, size, modification time in ns, inode) of the files."""
    try:
        with os.scandir(folder) as entries:
            found = [(entry.name, entry.stat()) for entry in islice(entries, MAX_ENTRIES)]
    except OSError:  # changed while it was read: the next look will see another one
        return ()
    return tuple(sorted((n, s.st_size, s.st_mtime_ns, s.st_ino) for n, s in found))
