"""BundleService: what is served, and the files a device needs to encode for it."""

import asyncio
from typing import Final

import grpc

from cloud_recognizer.metrics import Metrics
from cloud_recognizer.model import ExpressionModel, Models
from cloud_recognizer.status import aborting
from mien.bundle import EDGE_FILES
from mien.v1 import bundle_pb2 as pb
from mien.v1.bundle_pb2_grpc import BundleServiceServicer

PIECE_BYTES: Final = 65536


class BundleServicer(BundleServiceServicer):
    """Lists the bundles and streams their encoders."""

    def __init__(self, models: Models, metrics: Metrics) -> None:
        self._models = models
        self._metrics = metrics

    async def ListBundles(  # noqa: N802
        self,
        request: pb.ListBundlesRequest,
        context: grpc.aio.ServicerContext[pb.ListBundlesRequest, pb.ListBundlesResponse],
    ) -> pb.ListBundlesResponse:
        """See bundle.proto; the preferred bundle comes first."""
        preferred = self._models.preferred
        return pb.ListBundlesResponse(
            bundles=[_summary(model, preferred=model is preferred) for model in self._models]
        )

    async def DownloadEncoder(  # type: ignore[override]  # noqa: N802  # a writer, no generator
        self,
        request: pb.DownloadEncoderRequest,
        context: grpc.aio.ServicerContext[pb.DownloadEncoderRequest, pb.DownloadEncoderResponse],
    ) -> None:
        """See bundle.proto. NOT_FOUND for a bundle that is not served."""
        async with aborting(context, self._metrics):
            bundle = self._models.get(request.bundle_id).bundle
            for name in EDGE_FILES:
                # Verified again as it is read: a file that was changed since is not sent.
                data = await asyncio.to_thread(bundle.read, name)
                sha256 = bundle.entry(name).sha256
                header = pb.FileHeader(name=name, size_bytes=len(data), sha256=sha256)
                await context.write(pb.DownloadEncoderResponse(file=header))
                for start in range(0, len(data), PIECE_BYTES):
                    piece = data[start : start + PIECE_BYTES]
                    await context.write(pb.DownloadEncoderResponse(piece=piece))


def _summary(model: ExpressionModel, *, preferred: bool) -> pb.BundleSummary:
    manifest = model.bundle.manifest
    return pb.BundleSummary(
        bundle_id=model.bundle_id,
        name=manifest.name,
        expressions=manifest.expressions,
        preferred=preferred,
        encoder_bytes=sum(model.bundle.entry(name).bytes for name in EDGE_FILES),
    )
