"""What tests of a repository that changes share: to follow it, and a model that goes wrong."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from cloud_recognizer.model import ExpressionModel, RuntimeOptions
from mien.bitstream import Limits
from mien.bundle import Bundle
from mien.messages.upward import Hello, upward_to_proto
from mien.v1 import bundle_pb2 as pb
from mien.v1.bundle_pb2_grpc import BundleServiceStub
from tests.support.recognizer import Running, eventually, hello, running_recognizer

POLL_S = 0.02


@asynccontextmanager
async def watching(repository: Path, **more: Any) -> AsyncIterator[Running]:
    async with running_recognizer(repository, bundles_poll_s=POLL_S, **more) as running:
        yield running


def is_served(running: Running, bundle: Bundle) -> bool:
    labels = {"bundle_id": bundle.bundle_id, "provider": "CPUExecutionProvider"}
    return running.sample("model_info", **labels) == 1


def has_role(running: Running, bundle: Bundle, role: str) -> bool:
    return running.sample("bundle_role", bundle_id=bundle.bundle_id, role=role) == 1


def labels_of(running: Running) -> set[str]:
    """Every bundle id that stands in a label."""
    return {
        sample.labels["bundle_id"]
        for family in running.metrics.registry.collect()
        for sample in family.samples
        if "bundle_id" in sample.labels
    }


async def listed(running: Running) -> list[str]:
    response = await BundleServiceStub(running.channel).ListBundles(pb.ListBundlesRequest())
    return [summary.bundle_id for summary in response.bundles]


async def look_again(running: Running) -> None:
    """Wait until the repository was looked at three times more."""
    looks = running.sample("repository_looks_total")
    await eventually(lambda: running.sample("repository_looks_total") >= looks + 3)


def able(*bundles: Bundle, device_id: str = "door") -> Hello:
    """A device that has these bundles and fetches others."""
    have = tuple(bundle.bundle_id for bundle in bundles)
    return Hello(device_id, 1, 0, have, fetches_bundles=True)


class Turning(ExpressionModel):
    """A model that answers wrongly while `broken` says so, as a failing processor would."""

    def __init__(
        self, bundle: Bundle, options: RuntimeOptions, limits: Limits, broken: Callable[[], bool]
    ) -> None:
        super().__init__(bundle, options, limits)
        self._broken = broken

    def classify(self, symbols: Any, level: Any) -> Any:
        found = super().classify(symbols, level)
        return found[:, ::-1] if self._broken() else found


def bundles(repository: Path) -> list[str]:
    return ["bundles", "--repository", str(repository)]


def hello_request(bundle: Bundle, device_id: str) -> Any:
    return upward_to_proto(hello(bundle, device_id))


async def eventually_async(call: Callable[[], Any], expected: object) -> None:
    """Wait until a call answers what is expected; fails when it does not within 30 s."""
    async with asyncio.timeout(30):
        while await call() != expected:
            await asyncio.sleep(POLL_S)
