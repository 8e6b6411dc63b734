"""BundleService: what is served, and the files a device needs to encode for it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import grpc

from cloud_recognizer.access import Access, share_of
from cloud_recognizer.bundles.catalogue import Catalogue
from cloud_recognizer.metrics import DOWNLOADS, Metrics
from cloud_recognizer.model import ExpressionModel
from cloud_recognizer.places import Places
from cloud_recognizer.status import aborting
from cloud_recognizer.writing import write
from mien.bundle import EDGE_FILES, MANIFEST, Bundle
from mien.errors import OverloadedError
from mien.signing import read_signatures
from mien.v1 import bundle_pb2 as pb
from mien.v1.bundle_pb2_grpc import BundleServiceServicer

PIECE_BYTES: Final = 65536
MAX_DOWNLOADS: Final = 32
# Downloads of one device, those that wait included: one, and one that is dead without a word.
MAX_OWN_DOWNLOADS: Final = 2
# Those that wait for others to end, and for how long; a fleet is told of a new bundle all at once,
# and comes again by itself.
MAX_WAITING: Final = 256
WAIT_S: Final = 10.0

DownloadContext = grpc.aio.ServicerContext[pb.DownloadEncoderRequest, pb.DownloadEncoderResponse]


class BundleServicer(BundleServiceServicer):
    """Lists the bundles and streams their encoders, MAX_DOWNLOADS at a time."""

    def __init__(
        self, models: Catalogue, metrics: Metrics, access: Access | None, write_timeout_s: float
    ) -> None:
        self._models = models
        self._metrics = metrics
        self._access = access
        self._write_timeout_s = write_timeout_s
        self._places = Places(
            *(metrics, DOWNLOADS, "downloads that run or wait"),
            capacity=MAX_DOWNLOADS + MAX_WAITING,
            each=MAX_OWN_DOWNLOADS,
        )
        self._turns = asyncio.Semaphore(MAX_DOWNLOADS)

    async def ListBundles(  # noqa: N802
        self,
        request: pb.ListBundlesRequest,
        context: grpc.aio.ServicerContext[pb.ListBundlesRequest, pb.ListBundlesResponse],
    ) -> pb.ListBundlesResponse:
        """See bundle.proto; the promoted bundle comes first."""
        return pb.ListBundlesResponse(
            bundles=[_summary(model, preferred=not n) for n, model in enumerate(self._models)]
        )

    async def DownloadEncoder(  # type: ignore[override]  # noqa: N802  # a writer, no generator
        self, request: pb.DownloadEncoderRequest, context: DownloadContext
    ) -> None:
        """See bundle.proto. NOT_FOUND for a bundle that is not served.

        RESOURCE_EXHAUSTED where its turn does not come in time.
        """
        async with aborting(context, self._metrics):
            bundle = self._models.offered(request.bundle_id).bundle
            offset = request.offset_bytes
            with self._places.one(share_of(self._access, context)):
                async with self._turn():
                    for name in EDGE_FILES:
                        offset -= await self._send(context, bundle, name, max(offset, 0))

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(WAIT_S):
                await self._turns.acquire()
        except TimeoutError:
            self._metrics.turned_away.labels(DOWNLOADS).inc()
            raise OverloadedError(
                f"{MAX_DOWNLOADS} downloads run, and none has ended for {WAIT_S:g} s"
            ) from None
        try:
            yield
        finally:
            self._turns.release()

    async def _send(self, context: DownloadContext, bundle: Bundle, name: str, offset: int) -> int:
        """Send a file from an offset on; returns its whole size."""
        # Verified again as it is read: a file that was changed since is not sent.
        data = await asyncio.to_thread(bundle.read, name)
        header = pb.FileHeader(name=name, size_bytes=len(data), sha256=bundle.entry(name).sha256)
        if name == MANIFEST:
            # Read anew, for it may have been signed since: devices judge it, by their own keys.
            header.signatures = await asyncio.to_thread(read_signatures, bundle.folder)
        timeout_s = self._write_timeout_s
        await write(context, pb.DownloadEncoderResponse(file=header), timeout_s)
        for start in range(offset, len(data), PIECE_BYTES):
            piece = data[start : start + PIECE_BYTES]
            await write(context, pb.DownloadEncoderResponse(piece=piece), timeout_s)
        return len(data)


def _summary(model: ExpressionModel, *, preferred: bool) -> pb.BundleSummary:
    manifest = model.bundle.manifest
    return pb.BundleSummary(
        bundle_id=model.bundle_id,
        name=manifest.name,
        expressions=manifest.expressions,
        preferred=preferred,
        encoder_bytes=sum(model.bundle.entry(name).bytes for name in EDGE_FILES),
    )
