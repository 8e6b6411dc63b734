"""A repository that changes while it is served: bundles come, go, are wrong, and get roles."""

import asyncio
import shutil
import threading
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2

from cloud_recognizer.model import ExpressionModel, RuntimeOptions
from mien.bitstream import Limits
from mien.bundle import Bundle
from mien.cli.main import main
from mien.messages.downward import UseBundle
from mien.rollout import FILE, Canary, Rollout, change_rollout, read_rollout
from tests.support.recognizer import (
    Device,
    eventually,
    health,
    hello,
    payload,
)
from tests.support.repository import (
    Turning,
    able,
    bundles,
    eventually_async,
    has_role,
    hello_request,
    is_served,
    labels_of,
    listed,
    look_again,
    watching,
)

SERVING = health_pb2.HealthCheckResponse.SERVING


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
