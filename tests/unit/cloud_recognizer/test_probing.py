"""Golden probes in service, and what follows when one fails."""

import asyncio
import shutil
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2

from cloud_recognizer.batcher import Batcher
from cloud_recognizer.bundles.catalogue import Catalogue
from cloud_recognizer.bundles.probing import Prober
from cloud_recognizer.bundles.repository import Repository
from cloud_recognizer.credits import CreditLedger
from cloud_recognizer.health import LIVENESS
from cloud_recognizer.intake import Intake
from cloud_recognizer.metrics import Metrics
from cloud_recognizer.model import ExpressionModel, RuntimeOptions
from cloud_recognizer.recognizer import Job, Outcome, Recognizer
from mien.bitstream import Limits
from mien.bundle import Bundle
from mien.cli.main import main
from mien.messages.downward import UseBundle
from mien.rollout import FILE, Canary, Rollout, change_rollout, read_rollout
from tests.support.recognizer import (
    Device,
    eventually,
    health,
)
from tests.support.repository import (
    Turning,
    able,
    bundles,
    eventually_async,
    has_role,
    hello_request,
    listed,
    look_again,
    watching,
)

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@dataclass
class Fault:
    """A bundle whose probe fails while it is broken."""

    bundle_id: str
    broken: bool = False

    def load(self, one: Bundle, options: RuntimeOptions, limits: Limits) -> ExpressionModel:
        """What to serve a bundle with."""
        return Turning(
            one, options, limits, lambda: self.broken and one.bundle_id == self.bundle_id
        )


async def test_a_promoted_bundle_whose_probe_fails_in_service_is_rolled_back(
    repository: Path, first: Bundle, second: Bundle
) -> None:
    fault = Fault(second.bundle_id)
    shutil.copytree(second.folder, repository / "second")
    change_rollout(
        repository, lambda state: state.promote(first.bundle_id).promote(second.bundle_id)
    )
    async with watching(repository, load=fault.load, probe_interval_s=0.05) as running:
        device = Device(running.stub)
        assert (await device.open(able(second, first))).bundle_id == second.bundle_id
        await eventually(lambda: running.sample("probes_total", outcome="held") >= 2)
        assert running.sample("rollbacks_total") == 0
        fault.broken = True
        assert await device.read() == UseBundle(first.bundle_id)
        await eventually(lambda: read_rollout(repository) == Rollout(first.bundle_id))
        assert running.sample("rollbacks_total") == 1
        assert has_role(running, first, "promoted")
        assert await listed(running) == [first.bundle_id]
        assert await health(running.channel) == SERVING
        # An operator who names it again is obeyed.
        fault.broken = False
        assert await asyncio.to_thread(main, [*bundles(repository), "promote", "second"]) == 0
        assert await device.read() == UseBundle(second.bundle_id)


async def test_a_canary_whose_probe_fails_in_service_is_taken_from_its_devices(
    repository: Path, first: Bundle, second: Bundle
) -> None:
    fault = Fault(second.bundle_id)
    shutil.copytree(second.folder, repository / "second")
    canary = Canary(second.bundle_id, 1.0)
    change_rollout(repository, lambda _: Rollout(first.bundle_id, canary=canary))
    async with watching(repository, load=fault.load, probe_interval_s=0.05) as running:
        device = Device(running.stub)
        assert (await device.open(able(second, first))).bundle_id == second.bundle_id
        fault.broken = True
        assert await device.read() == UseBundle(first.bundle_id)
        await eventually(lambda: read_rollout(repository) == Rollout(first.bundle_id))
        assert has_role(running, first, "promoted")
        assert running.sample("rollbacks_total") == 1
        assert running.sample("canary_share") == 0
        assert await health(running.channel) == SERVING


async def test_a_rollback_holds_where_the_folder_cannot_be_written(
    repository: Path, first: Bundle, second: Bundle
) -> None:
    fault = Fault(second.bundle_id)
    shutil.copytree(second.folder, repository / "second")
    change_rollout(repository, lambda _: Rollout(second.bundle_id, (first.bundle_id,)))
    async with watching(repository, load=fault.load, probe_interval_s=0.05) as running:
        # A folder in its place makes writing fail for every user, root included.
        (repository / FILE).unlink()
        (repository / FILE).mkdir()
        fault.broken = True
        await eventually(lambda: has_role(running, first, "promoted"))
        await look_again(running)
        assert has_role(running, first, "promoted")
        assert running.sample("rollout_errors_total") >= 1


async def test_without_another_bundle_health_says_so_until_the_probe_holds_again(
    repository: Path, first: Bundle
) -> None:
    fault = Fault(first.bundle_id)
    async with watching(repository, load=fault.load, probe_interval_s=0.05) as running:
        fault.broken = True
        await eventually_async(lambda: health(running.channel), NOT_SERVING)
        assert await health(running.channel, LIVENESS) == SERVING, "another start mends no model"
        device = Device(running.stub)
        await device.call.write(hello_request(first, "door"))
        assert (await device.status())[0] is grpc.StatusCode.UNAVAILABLE
        fault.broken = False
        await eventually_async(lambda: health(running.channel), SERVING)
        assert await listed(running) == [first.bundle_id]


async def test_a_probe_takes_no_room_that_devices_were_promised(repository: Path) -> None:
    metrics = Metrics()
    models = Catalogue(Limits(), metrics)
    options = RuntimeOptions("cpu", 1, False)
    places = Repository(repository, models, metrics, options, max_bundles=4)
    await places.open()
    recognizer = Recognizer(models, metrics)
    batcher: Batcher[Job, Outcome] = Batcher(
        recognizer.recognise,
        metrics,
        max_chunks=64,
        max_bytes=1 << 20,
        max_batch_faces=64,
        max_wait_s=0.0,
    )
    ledger = CreditLedger(places=8, max_streams=1, most=8, call_places=8, patience_s=1.0)
    ledger.reserve(8)  # calls have taken what they may

    def probes(outcome: str) -> float | None:
        return metrics.registry.get_sample_value("mien_cloud_probes_total", {"outcome": outcome})

    intake = Intake(recognizer, batcher, Limits())
    prober = Prober(models, intake, ledger, places.roll_back, metrics, 0.01)
    async with batcher, prober.running():
        await eventually(lambda: probes("skipped") >= 2)
        assert probes("failed") == probes("held") == 0
        ledger.release(8)
        await eventually(lambda: probes("held") >= 2)
    ledger.reserve(8)  # and what a probe has taken is back
