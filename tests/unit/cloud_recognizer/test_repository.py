"""A repository that changes while it is served: bundles come, go, are wrong, and get roles."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2

from cloud_recognizer.model import ExpressionModel, RuntimeOptions
from mien.bitstream import Limits
from mien.bundle import Bundle
from mien.cli.main import main
from mien.messages import Hello, UseBundle
from mien.rollout import FILE, Canary, Rollout, change_rollout, read_rollout
from mien.v1 import bundle_pb2 as pb
from mien.v1.bundle_pb2_grpc import BundleServiceStub
from tests.support.recognizer import (
    Device,
    Running,
    eventually,
    health,
    hello,
    payload,
    running_recognizer,
)
from tests.support.tiny_bundle import make_tiny_bundle

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
POLL_S = 0.02


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    make_tiny_bundle(tmp_path / "bundles" / "first", name="first", created="2026-01-01")
    return tmp_path / "bundles"


@pytest.fixture
def first(repository: Path) -> Bundle:
    return make_tiny_bundle(repository / "first", name="first", created="2026-01-01")


@pytest.fixture
def second(tmp_path: Path) -> Bundle:
    """A newer bundle, beside the repository."""
    return make_tiny_bundle(tmp_path / "second", name="second", created="2026-01-02")


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


async def look_again(running: Running, times: int = 3) -> None:
    """Wait until the repository was looked at a few times more."""
    await asyncio.sleep(times * POLL_S * 2)


def able(*bundles: Bundle, device_id: str = "door") -> Hello:
    """A device that has these bundles and fetches others."""
    have = tuple(bundle.bundle_id for bundle in bundles)
    return Hello(device_id, 1, 0, have, fetches_bundles=True)


async def test_a_bundle_that_comes_is_served_and_changes_nothing_by_itself(
    repository: Path, first: Bundle, second: Bundle
) -> None:
    async with watching(repository) as running:
        shutil.copytree(second.folder, repository / "second")
        await eventually(lambda: is_served(running, second))
        assert await listed(running) == [first.bundle_id, second.bundle_id]
        assert await health(running.channel) == SERVING
        device = Device(running.stub)
        assert (await device.open(able(second, first))).bundle_id == first.bundle_id
        # Written down, or the next start would take the latest.
        await eventually(lambda: read_rollout(repository).promoted == first.bundle_id)
    async with watching(repository) as running:
        assert running.serving.bundle_id == first.bundle_id


async def test_health_is_serving_and_faces_are_recognised_while_a_bundle_loads(
    repository: Path, first: Bundle, second: Bundle
) -> None:
    import threading

    loading, may_go_on = threading.Event(), threading.Event()

    def load(one: Bundle, options: RuntimeOptions, limits: Limits) -> ExpressionModel:
        if one.bundle_id == second.bundle_id:
            loading.set()
            assert may_go_on.wait(30)
        return ExpressionModel(one, options, limits)

    async with watching(repository, load=load) as running:
        shutil.copytree(second.folder, repository / "second")
        assert await asyncio.to_thread(loading.wait, 30)
        assert await health(running.channel) == SERVING
        device = Device(running.stub)
        await device.open(able(first))
        await device.send(1, payload(first))
        assert (await device.close()).results[0].bundle_id == first.bundle_id
        assert await listed(running) == [first.bundle_id]
        may_go_on.set()
        await eventually(lambda: is_served(running, second))


async def test_a_folder_that_is_copied_slowly_is_no_error_and_counts_once_it_is_whole(
    repository: Path, second: Bundle
) -> None:
    async with watching(repository) as running:
        target = repository / "second"
        target.mkdir()
        names = [path.name for path in second.folder.iterdir() if path.name != "manifest.json"]
        for name in ("manifest.json", *names):
            data = (second.folder / name).read_bytes()
            with (target / name).open("wb") as stream:
                stream.write(data[: len(data) // 2])
                stream.flush()
                if name != "manifest.json":  # half of that is not known to be a manifest
                    await eventually(lambda: running.sample("incomplete_bundles") == 1)
                stream.write(data[len(data) // 2 :])
            assert not is_served(running, second) or name == names[-1]
        await eventually(lambda: is_served(running, second))
        assert running.sample("incomplete_bundles") == 0
        assert running.sample("refused_bundles_total", code="bundle_hash_mismatch") == 0


async def test_a_wrong_folder_is_reported_once_and_again_when_it_has_changed(
    repository: Path, second: Bundle
) -> None:
    def refused(code: str = "bundle_hash_mismatch") -> float:
        return running.sample("refused_bundles_total", code=code)

    async with watching(repository) as running:
        shutil.copytree(second.folder, repository / "second")
        wrong = repository / "second" / "classifier.onnx"
        right = wrong.read_bytes()
        wrong.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
        (repository / "third").mkdir()
        (repository / "third" / "manifest.json").write_bytes(b"{}")
        await eventually(lambda: refused() == 1 and refused("bad_manifest") == 1)
        await look_again(running)
        assert (refused(), refused("bad_manifest")) == (1, 1)
        wrong.write_bytes(right[:-1] + bytes([right[-1] ^ 2]))
        await eventually(lambda: refused() == 2)
        wrong.write_bytes(right)
        await eventually(lambda: is_served(running, second))


async def test_a_bundle_that_does_not_answer_its_probe_is_refused_once(
    repository: Path, second: Bundle
) -> None:
    def load(one: Bundle, options: RuntimeOptions, limits: Limits) -> ExpressionModel:
        return Turning(one, options, limits, lambda: one.bundle_id == second.bundle_id)

    async with watching(repository, load=load) as running:
        shutil.copytree(second.folder, repository / "second")
        await eventually(lambda: running.sample("refused_bundles_total", code="probe_failed") == 1)
        await look_again(running)
        assert running.sample("refused_bundles_total", code="probe_failed") == 1
        assert second.bundle_id not in await listed(running)


async def test_more_bundles_than_memory_has_room_for_are_refused(
    repository: Path, second: Bundle
) -> None:
    async with watching(repository, max_bundles=1) as running:
        shutil.copytree(second.folder, repository / "second")
        await eventually(lambda: running.sample("refused_bundles_total", code="too_many") == 1)
        assert not is_served(running, second)


async def test_a_bundle_that_left_is_served_until_its_streams_have_gone(
    repository: Path, first: Bundle, second: Bundle
) -> None:
    shutil.copytree(second.folder, repository / "second")
    change_rollout(repository, lambda state: state.promote(first.bundle_id))
    async with watching(repository) as running:
        # This one cannot change: it has nothing else and fetches nothing.
        device = Device(running.stub)
        await device.open(hello(second))
        shutil.rmtree(repository / "second")
        await eventually_async(lambda: listed(running), [first.bundle_id])
        for seq in (1, 2):
            await device.send(seq, payload(second))
        assert (await device.acknowledged(2)).results[1].bundle_id == second.bundle_id
        late = Device(running.stub)
        await late.call.write(hello_request(second, "late"))
        assert (await late.status())[0] is grpc.StatusCode.NOT_FOUND
        assert labels_of(running) == {first.bundle_id, second.bundle_id}
        await device.close()
        await eventually(lambda: labels_of(running) == {first.bundle_id})


async def test_a_repository_that_vanishes_leaves_what_is_in_memory_in_service(
    repository: Path, first: Bundle
) -> None:
    async with watching(repository) as running:
        repository.rename(repository.with_name("elsewhere"))
        await look_again(running)
        assert await listed(running) == [first.bundle_id]
        assert await health(running.channel) == SERVING


async def test_a_promotion_reaches_connected_devices_which_may_send_both_meanwhile(
    repository: Path, first: Bundle, second: Bundle
) -> None:
    async with watching(repository) as running:
        device, fixed = Device(running.stub), Device(running.stub)
        assert (await device.open(able(first))).bundle_id == first.bundle_id
        await fixed.open(hello(first, "fixed"))
        shutil.copytree(second.folder, repository / "second")
        await eventually(lambda: is_served(running, second))
        assert await asyncio.to_thread(main, [*bundles(repository), "promote", "second"]) == 0
        assert await device.read() == UseBundle(second.bundle_id)
        assert has_role(running, second, "promoted")
        shutil.rmtree(repository / "first")
        await eventually_async(lambda: listed(running), [second.bundle_id])
        for seq, coded in enumerate((first, second, second), 1):
            await device.send(seq, payload(coded))
        answers = await device.acknowledged(3)
        assert [x.bundle_id for x in answers.results] == [
            first.bundle_id,
            second.bundle_id,
            second.bundle_id,
        ]
        assert (await fixed.close()).messages == []  # a device that cannot change is not asked to
        # The one that has changed holds the old bundle no more, though its stream goes on.
        await eventually(lambda: labels_of(running) == {second.bundle_id})


async def test_a_canary_gets_its_share_of_devices_and_they_stay(
    repository: Path, first: Bundle, second: Bundle
) -> None:
    shutil.copytree(second.folder, repository / "second")
    canary = Canary(second.bundle_id, 0.5)
    change_rollout(repository, lambda _: Rollout(first.bundle_id, canary=canary))
    names = [f"camera-{number}" for number in range(12)]
    async with watching(repository) as running:
        for _ in range(2):
            for name in names:
                device = Device(running.stub)
                welcome = await device.open(able(first, second, device_id=name))
                expected = second if canary.takes(name) else first
                assert welcome.bundle_id == expected.bundle_id
                await device.close()
    assert {canary.takes(name) for name in names} == {True, False}


async def test_a_device_without_any_served_bundle_is_told_which_to_fetch(
    repository: Path, first: Bundle, second: Bundle
) -> None:
    async with watching(repository) as running:
        device = Device(running.stub)
        assert (await device.open(able(second))).bundle_id == first.bundle_id


async def test_a_state_that_cannot_be_read_changes_nothing_and_is_reported_once(
    repository: Path, first: Bundle, second: Bundle
) -> None:
    shutil.copytree(second.folder, repository / "second")
    change_rollout(repository, lambda state: state.promote(first.bundle_id))
    async with watching(repository) as running:
        (repository / FILE).write_text("promote the second, please")
        await eventually(lambda: running.sample("rollout_errors_total") == 1)
        await look_again(running)
        assert running.sample("rollout_errors_total") == 1
        assert await listed(running) == [first.bundle_id, second.bundle_id]
        (repository / FILE).write_bytes(Rollout(second.bundle_id).to_json())
        await eventually(lambda: has_role(running, second, "promoted"))


class Turning(ExpressionModel):
    """A model that answers wrongly while `broken` says so, as a failing processor would."""

    def __init__(
        self, bundle: Bundle, options: RuntimeOptions, limits: Limits, broken: Callable[[], bool]
    ) -> None:
        super().__init__(bundle, options, limits)
        self._broken = broken

    def classify(self, symbols: Any) -> Any:
        found = super().classify(symbols)
        return found[:, ::-1] if self._broken() else found


async def test_a_promoted_bundle_whose_probe_fails_in_service_is_rolled_back(
    repository: Path, first: Bundle, second: Bundle
) -> None:
    broken = False

    def load(one: Bundle, options: RuntimeOptions, limits: Limits) -> ExpressionModel:
        return Turning(one, options, limits, lambda: broken and one.bundle_id == second.bundle_id)

    shutil.copytree(second.folder, repository / "second")
    change_rollout(
        repository, lambda state: state.promote(first.bundle_id).promote(second.bundle_id)
    )
    async with watching(repository, load=load, probe_interval_s=0.05) as running:
        device = Device(running.stub)
        assert (await device.open(able(second, first))).bundle_id == second.bundle_id
        await eventually(lambda: running.sample("probes_total", outcome="held") >= 2)
        assert running.sample("rollbacks_total") == 0
        broken = True
        assert await device.read() == UseBundle(first.bundle_id)
        await eventually(lambda: read_rollout(repository) == Rollout(first.bundle_id))
        assert running.sample("rollbacks_total") == 1
        assert has_role(running, first, "promoted")
        assert await listed(running) == [first.bundle_id]
        assert await health(running.channel) == SERVING
        # An operator who names it again is obeyed.
        broken = False
        assert await asyncio.to_thread(main, [*bundles(repository), "promote", "second"]) == 0
        assert await device.read() == UseBundle(second.bundle_id)


async def test_a_rollback_holds_where_the_folder_cannot_be_written(
    repository: Path, first: Bundle, second: Bundle
) -> None:
    broken = False

    def load(one: Bundle, options: RuntimeOptions, limits: Limits) -> ExpressionModel:
        return Turning(one, options, limits, lambda: broken and one.bundle_id == second.bundle_id)

    shutil.copytree(second.folder, repository / "second")
    change_rollout(repository, lambda _: Rollout(second.bundle_id, (first.bundle_id,)))
    async with watching(repository, load=load, probe_interval_s=0.05) as running:
        # A folder in its place makes writing fail for every user, root included.
        (repository / FILE).unlink()
        (repository / FILE).mkdir()
        broken = True
        await eventually(lambda: has_role(running, first, "promoted"))
        await look_again(running)
        assert has_role(running, first, "promoted")
        assert running.sample("rollout_errors_total") >= 1


async def test_without_another_bundle_health_says_so_until_the_probe_holds_again(
    repository: Path, first: Bundle
) -> None:
    broken = False

    def load(one: Bundle, options: RuntimeOptions, limits: Limits) -> ExpressionModel:
        return Turning(one, options, limits, lambda: broken)

    async with watching(repository, load=load, probe_interval_s=0.05) as running:
        broken = True
        await eventually_async(lambda: health(running.channel), NOT_SERVING)
        broken = False
        await eventually_async(lambda: health(running.channel), SERVING)
        assert await listed(running) == [first.bundle_id]


def bundles(repository: Path) -> list[str]:
    return ["bundles", "--repository", str(repository)]


def hello_request(bundle: Bundle, device_id: str) -> Any:
    from mien.messages import upward_to_proto

    return upward_to_proto(hello(bundle, device_id))


async def eventually_async(call: Callable[[], Any], expected: object) -> None:
    """Wait until a call answers what is expected; fails when it does not within 30 s."""
    async with asyncio.timeout(30):
        while await call() != expected:
            await asyncio.sleep(POLL_S)
