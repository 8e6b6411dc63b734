"""Which bundle one device encodes with, while its stream lasts."""

import contextlib

from cloud_recognizer.bundles.catalogue import Catalogue, Lease
from cloud_recognizer.model import ExpressionModel
from mien.errors import UnavailableError, UnknownBundleError
from mien.messages.downward import Downward, UseBundle
from mien.messages.results import ChunkResult
from mien.messages.upward import Hello


def choose_model(models: Catalogue, hello: Hello) -> ExpressionModel:
    """What the device is to use if it has it, else the first of the device's we serve."""
    wanted = models.wanted(hello.device_id)
    if wanted.bundle_id in hello.bundle_ids:
        return wanted
    for bundle_id in hello.bundle_ids:
        with contextlib.suppress(UnknownBundleError):
            return models.offered(bundle_id)
    if hello.fetches_bundles:
        return wanted
    raise UnknownBundleError(
        f"none of the device's {len(hello.bundle_ids)} bundles is served here; get "
        f"{wanted.bundle_id} with DownloadEncoder"
    )


class DeviceBundle:
    """Tells a device when it is to change, and holds in service what it may still send.

    welcomed: the bundle that Welcome named.
    """

    def __init__(self, models: Catalogue, lease: Lease, hello: Hello, welcomed: str) -> None:
        self._models = models
        self._lease = lease
        self._hello = hello
        self._told = welcomed
        # Chunks of an earlier stream may come again, in the bundle they were coded with.
        for bundle_id in (welcomed, *hello.bundle_ids):
            lease.take(bundle_id)

    def change(self) -> UseBundle | None:
        """What to tell the device now; None when it has been told, or cannot change."""
        with contextlib.suppress(UnavailableError):
            wanted = self._models.wanted(self._hello.device_id).bundle_id
            able = self._hello.fetches_bundles or wanted in self._hello.bundle_ids
            if able and wanted != self._told:
                self._told = wanted
                self._lease.take(wanted)
                return UseBundle(wanted)
        return None

    def note(self, answer: Downward) -> None:
        """Look at what is sent: chunks of one stream are settled in order.

        So with the first in the new bundle, the last in the old one has been settled.
        """
        if isinstance(answer, ChunkResult) and answer.bundle_id == self._told:
            self._lease.keep_only(self._told)
