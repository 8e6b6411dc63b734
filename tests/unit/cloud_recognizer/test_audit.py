"""The audit log: who has looked at what, whole lines, bounded files, and disks that fail."""

import asyncio
import json
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import grpc
import pytest

from cloud_recognizer.audit import MAX_LISTED, AuditLog, Watching
from cloud_recognizer.audit_files import AuditFiles
from cloud_recognizer.caller import Caller
from cloud_recognizer.metrics import AUDIT_LOST, AUDIT_WRITTEN, Metrics
from mien.bundle import Bundle
from mien.errors import AuditError, ConfigError
from mien.identity import Identity, Role
from mien.messages.watched import WatchedChunk
from mien.v1 import recognition_pb2 as pb
from tests.support.recognizer import Device, eventually, hello, payload, running_recognizer
from tests.support.small_disk import small_disk

ANSWER = {"expression", "probability", "probabilities", "box", "png", "payload", "recognitions"}


class Call:
    """The part of a call's context that the log looks at."""

    def peer(self) -> str:
        return "ipv4:10.0.0.9:4711"

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return (("x-forwarded-for", "10.1.1.1"), ("authorization", "Bearer secret"))


CALL = cast("Any", Call())
SHOP = Caller(Identity(Role.CONSUMER, "shop"), 1_700_000_000.0)


def entries(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def lost(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value(
        "mien_cloud_audit_entries_total", {"outcome": AUDIT_LOST}
    )


async def test_a_watch_and_a_reconstruction_are_written_and_nothing_of_a_face(
    bundles: Path, bundle: Bundle, tmp_path: Path
) -> None:
    log = tmp_path / "audit.jsonl"
    settings: dict[str, Any] = {"audit_log": log, "audit_required": True}
    async with running_recognizer(bundles, allow_reconstruction=True, **settings) as running:
        call = running.stub.WatchRecognitions(pb.WatchRecognitionsRequest(device_ids=["door"]))
        await call.initial_metadata()
        device = Device(running.stub)
        await device.open(hello(bundle, "door"))
        await device.send(1, payload(bundle, faces=3))
        await device.close()
        await call.read()
        call.cancel()
        chunk = pb.ReconstructRequest(payload=payload(bundle, faces=2), device_id="gate")
        await running.stub.Reconstruct(chunk)
        await eventually(lambda: len(entries(log)) == 3)
        assert running.sample("audit_entries_total", outcome=AUDIT_WRITTEN) == 3
    found = {entry["event"]: entry for entry in entries(log)}
    assert found["watch_begun"]["devices"] == ["door"]
    assert (found["watched"]["devices"], found["watched"]["ended"]) == ({"door": 3}, True)
    assert (found["reconstructed"]["device"], found["reconstructed"]["faces"]) == ("gate", 2)
    for entry in found.values():
        assert entry["peer"].startswith("ipv4:127.0.0.1:")
        assert "role" not in entry, "over plaintext nobody is known"
        assert not ANSWER & set(entry)
    text = log.read_text(encoding="utf-8")
    assert not any(expression in text for expression in bundle.manifest.expressions)
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


async def test_who_reconstructs_must_name_the_device_where_a_log_is_kept(
    bundles: Path, bundle: Bundle, tmp_path: Path
) -> None:
    log = tmp_path / "audit.jsonl"
    async with running_recognizer(bundles, allow_reconstruction=True, audit_log=log) as running:
        with pytest.raises(grpc.aio.AioRpcError, match="device_id must be 1 to 64") as caught:
            await running.stub.Reconstruct(pb.ReconstructRequest(payload=payload(bundle)))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_nothing_is_shown_while_a_required_log_cannot_be_written(
    bundles: Path, bundle: Bundle, tmp_path: Path
) -> None:
    log = tmp_path / "audit" / "log"
    log.parent.mkdir()
    settings: dict[str, Any] = {"audit_log": log, "audit_required": True}
    async with running_recognizer(bundles, allow_reconstruction=True, **settings) as running:
        log.unlink()
        log.parent.rmdir()
        call = running.stub.WatchRecognitions(pb.WatchRecognitionsRequest())
        with pytest.raises(grpc.aio.AioRpcError, match="must be written down") as caught:
            await call.read()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        chunk = pb.ReconstructRequest(payload=payload(bundle), device_id="gate")
        with pytest.raises(grpc.aio.AioRpcError, match="must be written down"):
            await running.stub.Reconstruct(chunk)
        assert lost(running.metrics) == 2
        log.parent.mkdir()
        assert len((await running.stub.Reconstruct(chunk)).faces) == 3, "the disk is back"
    assert [entry["event"] for entry in entries(log)] == ["reconstructed"]


async def test_without_being_required_a_failing_log_is_counted_and_hides_nothing(
    tmp_path: Path,
) -> None:
    metrics = Metrics()
    log = tmp_path / "gone" / "log"
    log.parent.mkdir()
    with AuditLog(log, metrics) as audit:
        log.unlink()
        log.parent.rmdir()
        await audit.reconstructed(CALL, SHOP, "door", 1)
    assert lost(metrics) == 1


async def test_a_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    metrics = Metrics()
    disk = tmp_path / "disk"
    disk.mkdir()

    async def go_on(audit: AuditLog) -> None:
        for _ in range(100):  # what is left of the last page takes some
            await audit.reconstructed(CALL, SHOP, "x" * 64, 1)

    async def fill(audit: AuditLog, switch: Callable[[bool], None]) -> None:
        await audit.reconstructed(CALL, SHOP, "before", 1)
        switch(True)
        with pytest.raises(AuditError):
            await go_on(audit)
        switch(False)
        await audit.reconstructed(CALL, SHOP, "after", 1)

    with small_disk(disk) as switch, AuditLog(disk / "log", metrics, required=True) as audit:
        await fill(audit, switch)
        found = entries(disk / "log")
    assert (found[0]["device"], found[-1]["device"]) == ("before", "after")
    assert lost(metrics) == 1


async def test_files_are_bounded_in_size_and_number_and_the_newest_entries_stay(
    tmp_path: Path,
) -> None:
    log = tmp_path / "log"
    with AuditLog(log, Metrics(), max_bytes=1000, files=3) as audit:
        for faces in range(60):
            await audit.reconstructed(CALL, SHOP, "door", faces)
    files = [log.with_name("log.2"), log.with_name("log.1"), log]
    assert sorted(tmp_path.iterdir()) == sorted(files)
    assert all(file.stat().st_size <= 1000 for file in files)
    kept = [entry["faces"] for file in files for entry in entries(file)]
    assert kept == list(range(60 - len(kept), 60))
    assert len(kept) > 8


async def test_entries_are_forgotten_by_their_age_in_every_file(tmp_path: Path) -> None:
    log, now_s = tmp_path / "log", 0.0
    settings: dict[str, Any] = {"max_bytes": 1000, "files": 10, "clock": lambda: now_s}
    with AuditLog(log, Metrics(), **settings) as audit:
        for day in range(30):
            now_s = 1_700_000_000 + day * 86_400.0
            await audit.reconstructed(CALL, SHOP, "door", day)
    assert len(list(tmp_path.iterdir())) > 3
    AuditFiles(log, 1000, 10).forget(now_s - 7 * 86_400.0)
    kept = [entry["faces"] for file in tmp_path.iterdir() for entry in entries(file)]
    assert set(range(22, 30)) <= set(kept) <= set(range(21, 30))
    with AuditLog(log, Metrics(), max_age_s=7 * 86_400.0, **settings) as audit:
        now_s += 100 * 86_400.0
        async with audit.running():
            await eventually(lambda: list(tmp_path.iterdir()) == [])
        await audit.reconstructed(CALL, SHOP, "gate", 1)
    assert [entry["device"] for entry in entries(log)] == ["gate"]


async def test_files_beyond_those_that_there_may_be_now_are_deleted(tmp_path: Path) -> None:
    """Of ten files five stay when that is what is allowed, and nobody else's."""
    log, settings = tmp_path / "log", {"max_bytes": 1000, "clock": lambda: 1_700_000_000.0}
    with AuditLog(log, Metrics(), files=10, **settings) as audit:
        for faces in range(100):
            await audit.reconstructed(CALL, SHOP, "door", faces)
    assert (tmp_path / "log.9").exists()
    others = [tmp_path / name for name in ("log.20261130", "log.old", "log.07", "lag.7")]
    for other in others:
        other.write_text("another's")
    AuditFiles(log, 1000, 5).forget(0.0)
    kept = [log, *(tmp_path / f"log.{number}" for number in range(1, 5))]
    assert sorted(tmp_path.iterdir()) == sorted([*kept, *others])
    assert entries(log)[-1]["faces"] == 99


def test_a_line_that_is_no_entry_goes_with_what_is_old_and_hides_nothing(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text('half a li\n{"time": "2026-01-02T00:00:00+00:00", "faces": 1}\n')
    AuditFiles(log, 1000, 2).forget(datetime(2026, 1, 1, tzinfo=UTC).timestamp())
    assert [entry["faces"] for entry in entries(log)] == [1]
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


async def test_a_restart_goes_on_in_the_same_file(tmp_path: Path) -> None:
    for device in ("first", "second"):
        with AuditLog(tmp_path / "log", Metrics()) as audit:
            await audit.reconstructed(CALL, SHOP, device, 1)
    assert [entry["device"] for entry in entries(tmp_path / "log")] == ["first", "second"]


async def test_a_caller_is_an_address_a_proven_name_and_what_a_proxy_says(tmp_path: Path) -> None:
    with AuditLog(tmp_path / "log", Metrics(), clock=lambda: 1_700_000_000.5) as audit:
        await audit.reconstructed(CALL, SHOP, "door", 1)
    (entry,) = entries(tmp_path / "log")
    assert entry == {
        "time": "2023-11-14T22:13:20.500+00:00",
        "event": "reconstructed",
        "peer": "ipv4:10.0.0.9:4711",
        "role": "consumer",
        "name": "shop",
        "forwarded_for": "10.1.1.1",
        "device": "door",
        "faces": 1,
    }


async def test_an_entry_of_a_call_that_is_cancelled_is_written(tmp_path: Path) -> None:
    with AuditLog(tmp_path / "log", Metrics()) as audit:
        call = asyncio.create_task(audit.reconstructed(CALL, SHOP, "door", 1))
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
    assert [entry["device"] for entry in entries(tmp_path / "log")] == ["door"]


async def test_an_entry_after_the_end_is_counted_as_lost(tmp_path: Path) -> None:
    metrics = Metrics()
    with AuditLog(tmp_path / "log", metrics) as audit:
        pass
    await audit.reconstructed(CALL, SHOP, "door", 1)
    assert lost(metrics) == 1


def seen(device_id: str) -> WatchedChunk:
    return WatchedChunk(device_id, 1, 1, 0, "", (), (), 0)


async def test_a_watch_that_lasts_or_sees_many_devices_is_written_again() -> None:
    written: list[dict[str, Any]] = []
    now_s = 0.0

    async def write(**what: Any) -> None:
        written.append(what)

    watching = Watching(write, lambda: now_s)
    for number in range(MAX_LISTED):
        await watching.note(seen(f"d{number}"))
    assert [len(entry["devices"]) for entry in written] == [MAX_LISTED]
    await watching.note(seen("door"))
    assert len(written) == 1
    now_s = 601.0
    await watching.note(seen("gate"))
    assert list(written[-1]["devices"]) == ["door", "gate"]
    assert not written[-1]["ended"]


def test_a_log_that_cannot_be_written_at_the_start_is_a_wrong_setting(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match=r"audit_log: .* cannot be written"),
        AuditLog(tmp_path / "no" / "log", Metrics()),
    ):
        pass
