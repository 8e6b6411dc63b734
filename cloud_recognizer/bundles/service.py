"""BundleService: what is served, and the files a device needs to encode for it."""

import asyncio
from typing import Final

import grpc

from cloud_recognizer.bundles.catalogue import Catalogue
from cloud_recognizer.metrics import Metrics
from cloud_recognizer.model import ExpressionModel
from cloud_recognizer.status import aborting
from cloud_recognizer.writing import write
from mien.bundle import EDGE_FILES, MANIFEST, Bundle
from mien.signing import read_signatures
from mien.v1 import bundle_pb2 as pb
from mien.v1.bundle_pb2_grpc import BundleServiceServicer

PIECE_BYTES: Final = 65536
MAX_DOWNLOADS: Final = 32

DownloadContext = grpc.aio.ServicerContext[pb.DownloadEncoderRequest, pb.DownloadEncoderResponse]


class BundleServicer(BundleServiceServicer):
    """Lists the bundles and streams their encoders, MAX_DOWNLOADS at a time."""

    def __init__(self, models: Catalogue, metrics: Metrics, write_timeout_s: float) -> None:
        self._models = models
        self._metrics = metrics
        self._write_timeout_s = write_timeout_s
        self._downloads = asyncio.Semaphore(MAX_DOWNLOADS)

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
        """See bundle.proto. NOT_FOUND for a bundle that is not served."""
        async with aborting(context, self._metrics):
            bundle = self._models.offered(request.bundle_id).bundle
            offset = request.offset_bytes
            async with self._downloads:
                for name in EDGE_FILES:
                    offset -= await self._send(context, bundle, name, max(offset, 0))

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
