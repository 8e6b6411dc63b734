"""Where the released bundles lie on this machine."""

from pathlib import Path

import mien
from mien.bundle import EDGE_FILES, MANIFEST, BundleRepository
from mien.errors import UnknownBundleError


def released_bundles() -> Path | None:
    """`bundles` in the current folder, else in the checkout that mien was installed from."""
    checkout = Path(mien.__file__).resolve().parents[1]
    for folder in (Path("bundles"), checkout / "bundles"):
        if any(folder.glob(f"*/{MANIFEST}")):
            return folder
    return None


def chosen_bundle(given: Path | None) -> Path:
    """The folder of the bundle to use: the one given, or the preferred one of those released.

    Raises BundleError when there is none, or when what the edge needs of it is damaged.
    """
    folder = given if given is not None else released_bundles()
    if folder is None:
        raise UnknownBundleError(
            "there is no released bundle here; name a bundle folder with --bundle"
        )
    return BundleRepository(folder, EDGE_FILES).preferred.folder
