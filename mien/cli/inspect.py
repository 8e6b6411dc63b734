"""`mien inspect`: what is in a payload or a bundle, in words."""

from pathlib import Path

from mien.bundle import EDGE_FILES, BundleRepository
from mien.cli.released import released_bundles
from mien.errors import UnknownBundleError
from mien.inspect import describe


def inspect(path: Path, bundle: Path | None) -> str:
    """Describe a payload file, or a bundle by its folder or manifest.

    bundle: what a payload is decoded with. Without, a released one that fits; where none does,
    only the payload's header is read. Raises SourceError, BitstreamError, BundleError.
    """
    if bundle is not None:
        return describe(path, BundleRepository(bundle, EDGE_FILES))
    released = released_bundles()
    if released is None or path.is_dir():
        return describe(path)
    try:
        return describe(path, BundleRepository(released, EDGE_FILES))
    except UnknownBundleError:
        return describe(path)
