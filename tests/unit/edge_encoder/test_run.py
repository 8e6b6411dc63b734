"""`mien-edge run` as a process and in this one: exit codes, results, memory, imports."""

import asyncio
import json
import math
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import cv2
import onnx
import pytest
from onnx import TensorProto, helper

from edge_encoder.cli import main
from edge_encoder.config import EdgeConfig
from edge_encoder.device import run
from edge_encoder.spool.command import contents
from mien.bundle import EDGE_FILES, Bundle, BundleRepository
from mien.exit_codes import ExitCode
from mien.holding import BOX_STEP
from tests.support.metrics_page import metrics_page
from tests.support.mjpeg_camera import MjpegCamera, walking
from tests.support.moving_face import Scene, film
from tests.support.recognizer import Running, eventually, running_recognizer
from tests.support.reseal import reseal
from tests.unit.edge_encoder.conftest import CLIP_FRAMES

ROOT = Path(__file__).parents[3]
DEMO_CLIP = ROOT / ".cache/demo/carphone_pristine.mp4"
MEASURE = """
import json, sys
from edge_encoder.cli import main
code = main(sys.argv[1:])
status = open("/proc/self/status").read()
peak_kb = int(status.partition("VmHWM:")[2].split()[0])
print(json.dumps({"event": "measured", "code": code, "peak_mb": peak_kb / 1024,
                  "torch": any(name.partition(".")[0] == "torch" for name in sys.modules)}))
"""


@pytest.fixture
async def recognizer(bundle: Bundle) -> AsyncIterator[Running]:
    async with running_recognizer(bundle.folder) as running:
        yield running


def config(recognizer: Running, source: Path | str, results: Path, **more: Any) -> EdgeConfig:
    server = f"127.0.0.1:{recognizer.serving.port}"
    return EdgeConfig(str(source), server, results=str(results), **more)


def events(results: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in results.read_text().splitlines()]


def named(found: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [event for event in found if event["event"] == name]


async def finished(*arguments: str) -> tuple[int, list[dict[str, Any]], str]:
    """Run the command as a process; its exit code, events and log."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    )
    out, log = await process.communicate()
    assert process.returncode is not None
    return process.returncode, [json.loads(line) for line in out.splitlines()], log.decode()


async def test_every_frame_of_a_clip_is_recognised_and_added_up(
    recognizer: Running, bundle: Bundle, clip: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results.jsonl"
    code = await run(config(recognizer, clip, results, bundle=bundle.folder, device_id="door"))
    assert code == ExitCode.OK
    found = events(results)
    assert (found[0]["event"], found[-1]["event"]) == ("started", "summary")
    assert found[0]["device_id"] == "door"
    faces = named(found, "recognition")
    assert [face["frame"] for face in faces] == list(range(CLIP_FRAMES))
    assert {face["track_id"] for face in faces} == {0}
    for face in faces:
        assert tuple(face["probabilities"]) == bundle.manifest.expressions
        assert face["probabilities"][face["expression"]] == face["probability"]
        assert face["t_s"] == pytest.approx(face["frame"] / 25)
        x, y, width, height = face["box"]
        # About the face that was drawn there, 120 px wide; a box is told when it has moved.
        off = 12 + 120 / BOX_STEP
        assert abs(x + width / 2 - (90 + 2 * face["frame"])) < off
        assert abs(y + height / 2 - 111) < off
    summary = found[-1]
    assert summary["frames"] == summary["faces_sent"] == summary["faces_recognised"] == CLIP_FRAMES
    assert summary["clip"] == str(clip)
    assert summary["bundle_id"] == bundle.bundle_id
    shares = [face["chunk_bytes"] / face["chunk_faces"] for face in faces]
    assert summary["payload_bytes_per_face"] == pytest.approx(sum(shares) / CLIP_FRAMES, abs=1e-3)
    assert summary["edge_ms_per_face"] > 0
    assert summary["drops"] == summary["errors"] == {}
    if sys.platform.startswith("linux"):
        assert summary["wire_bytes_per_face"] > summary["payload_bytes_per_face"]
        assert "TCP_INFO" in summary["wire_measured_by"]


async def test_with_a_spool_every_face_was_on_disk_and_none_is_left_there(
    recognizer: Running, bundle: Bundle, clip: Path, tmp_path: Path
) -> None:
    settings = {"bundle": bundle.folder, "spool": tmp_path / "spool"}
    for _ in range(2):
        code = await run(config(recognizer, clip, tmp_path / "results.jsonl", **settings))
        assert code == ExitCode.OK
    found = contents(tmp_path / "spool")
    assert found["faces"] == 0
    assert found["books"]["accepted"] == found["books"]["settled"]
    assert found["books"]["accepted"]["faces"] == 2 * CLIP_FRAMES


async def test_without_a_bundle_the_server_s_is_fetched(
    recognizer: Running, bundle: Bundle, clip: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results.jsonl"
    assert await run(config(recognizer, clip, results, cache=tmp_path / "cache")) == ExitCode.OK
    assert events(results)[-1]["bundle_id"] == bundle.bundle_id


async def test_each_photograph_of_a_folder_is_searched(
    recognizer: Running, bundle: Bundle, tmp_path: Path
) -> None:
    folder = tmp_path / "photographs"
    folder.mkdir()
    two = Scene(640, 240).picture(60, 60, (400, 50))
    for index, picture in enumerate((Scene().picture(90, 60), Scene(shade=180).empty(), two, two)):
        cv2.imwrite(str(folder / f"{index}.png"), picture)
    (folder / "9.png").write_bytes(b"no picture")
    results = tmp_path / "results.jsonl"
    await run(config(recognizer, folder, results, bundle=bundle.folder))
    found = events(results)
    assert [face["frame"] for face in named(found, "recognition")] == [0, 2, 2, 3, 3]
    assert found[-1]["drops"] == {"unreadable_image": 1}


async def test_a_clip_that_is_played_twice_is_one_run(
    recognizer: Running, bundle: Bundle, clip: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results.jsonl"
    code = await run(config(recognizer, clip, results, bundle=bundle.folder, rounds=2))
    assert code == ExitCode.OK
    faces = named(events(results), "recognition")
    assert [face["frame"] for face in faces] == list(range(2 * CLIP_FRAMES))
    assert len(named(events(results), "summary")) == 1


async def test_a_clip_without_a_face_ends_well_with_nothing_to_divide(
    recognizer: Running, bundle: Bundle, tmp_path: Path
) -> None:
    empty = film(tmp_path / "empty.mp4", [Scene().empty()] * 12)
    results = tmp_path / "results.jsonl"
    code = await run(config(recognizer, empty, results, bundle=bundle.folder))
    assert code == ExitCode.OK
    summary = events(results)[-1]
    assert summary["frames"] == 12
    assert summary["faces_sent"] == 0
    assert summary["payload_bytes_per_face"] is None
    assert summary["edge_ms_per_face"] is None


async def test_metrics_are_served_while_it_runs(
    recognizer: Running, bundle: Bundle, clip: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results.jsonl"
    task = asyncio.create_task(
        run(config(recognizer, clip, results, bundle=bundle.folder, metrics_port=0, pace=True))
    )
    async with asyncio.timeout(60):
        while not (results.is_file() and named(events(results), "recognition")):
            await asyncio.sleep(0.01)
        page = await asyncio.to_thread(metrics_page, events(results)[0]["metrics_port"])
        await task
    assert page["mien_edge_frames_total"] >= 8
    assert page["mien_edge_recognised_faces_total"] >= 8
    assert page["mien_edge_second_looks_total"] == 0
    assert page["mien_edge_lag_limit_seconds"] == math.inf
    assert 'mien_edge_dropped_total{reason="uplink_full"}' in page


async def test_faces_that_a_bundle_doubts_are_looked_at_twice_and_counted(
    bundle: Bundle, clip: Path, tmp_path: Path
) -> None:
    model = onnx.load_from_string(bundle.read("analysis.onnx"))
    nodes = [("ReduceMean", "y", "mean"), ("IsNaN", "mean", "none"), ("Not", "none", "doubtful")]
    model.graph.node.extend(helper.make_node(op, [read], [made]) for op, read, made in nodes)
    model.graph.node[-3].attribute.extend(
        [helper.make_attribute("axes", [1, 2, 3]), helper.make_attribute("keepdims", 0)]
    )
    model.graph.output.append(helper.make_tensor_value_info("doubtful", TensorProto.BOOL, ["N"]))
    doubting = reseal(tmp_path / "doubting", bundle, analysis_onnx=model.SerializeToString())
    results = tmp_path / "results.jsonl"
    options: dict[str, Any] = {"bundle": doubting.folder, "metrics_port": 0, "pace": True}
    async with running_recognizer(doubting.folder) as recognizer, asyncio.timeout(60):
        task = asyncio.create_task(run(config(recognizer, clip, results, **options)))
        while not (results.is_file() and named(events(results), "recognition")):
            await asyncio.sleep(0.01)
        page = await asyncio.to_thread(metrics_page, events(results)[0]["metrics_port"])
        await task
    assert page["mien_edge_second_looks_total"] >= 8


async def test_a_camera_that_dies_and_comes_back_is_streamed_on(
    recognizer: Running, bundle: Bundle, tmp_path: Path
) -> None:
    results = tmp_path / "results.jsonl"
    camera = MjpegCamera(walking)
    with camera.on():
        pass  # now it has an address

    async def said(name: str, **fields: str) -> None:
        """Wait for one more event like this."""
        before = count(name, fields)
        await eventually(lambda: count(name, fields) > before)

    def count(name: str, fields: dict[str, str]) -> int:
        found = named(events(results), name) if results.is_file() else []
        return sum(fields.items() <= event.items() for event in found)

    def tracks() -> set[int]:
        return {face["track_id"] for face in named(events(results), "recognition")}

    server = f"127.0.0.1:{recognizer.serving.port}"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "edge_encoder.cli", "run", "--source", camera.url),
        *("--server", server, "--bundle", str(bundle.folder), "--results", str(results)),
        *("--chunk_faces", "1", "--metrics_port", "0", "--read_timeout_s", "0.5"),
        stderr=subprocess.PIPE,
        cwd=ROOT,
    )
    try:
        await said("source", state="lost", code="source_open")
        for stretch in (1, 2):
            with camera.on():
                # Results of before may still come: only another track id is of this stretch.
                await eventually(lambda: len(tracks()) >= stretch)  # noqa: B023
            await said("source", state="lost")
        port = named(events(results), "metrics")[0]["metrics_port"]
        page = await asyncio.to_thread(metrics_page, port)
    finally:
        process.terminate()
        _, log = await process.communicate()
    assert process.returncode == ExitCode.OK, log.decode()
    faces = named(events(results), "recognition")
    assert len(tracks()) >= 2
    assert [face["frame"] for face in faces] == sorted(face["frame"] for face in faces)
    assert 0 < named(events(results), "source")[-1]["health"] < 1
    assert page['mien_edge_camera_losses_total{code="source_open"}'] >= 1
    assert 0 < page["mien_edge_camera_health"] < 1
    assert page["mien_edge_lag_limit_seconds"] == 2


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], ExitCode.USAGE, "usage: mien-edge run"),
        (["walk"], ExitCode.USAGE, "usage: mien-edge run"),
        (["run", "--source", "x", "--chunk_faces", "0"], ExitCode.USAGE, "chunk_faces must be"),
        (["run", "--source", "/nowhere.mp4"], ExitCode.SOURCE, "/nowhere.mp4"),
        (["run", "--source", "{clip}", "--bundle", "/nowhere"], ExitCode.BUNDLE, "/nowhere"),
        (["run", "--source", "{clip}", "--results", "/no/where"], ExitCode.USAGE, "/no/where"),
        (["run", "--source", "{clip}", "--detector_model", "{clip}"], ExitCode.USAGE, "SHA-256"),
        (
            ["run", "--source", "{clip}", "--server", "127.0.0.1:1", "--give_up_s", "0.1"],
            ExitCode.SERVER,
            "no recognizer at 127.0.0.1:1",
        ),
        (
            [
                "run",
                "--source",
                "{clip}",
                "--bundle",
                "{bundle}",
                "--server",
                "127.0.0.1:1",
                "--give_up_s",
                "0.1",
            ],
            ExitCode.SERVER,
            "no recognizer at 127.0.0.1:1",
        ),
    ],
)
def test_failures_have_an_exit_code_and_one_line_that_says_why(
    arguments: list[str],
    code: ExitCode,
    message: str,
    clip: Path,
    bundle: Bundle,
    capsys: pytest.CaptureFixture[str],
) -> None:
    filled = [item.format(clip=clip, bundle=bundle.folder) for item in arguments]
    assert main(filled) == code
    assert message in capsys.readouterr().err


def test_help_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == ExitCode.OK
    assert "mien-edge run --source" in capsys.readouterr().out


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="VmHWM of Linux")
async def test_with_the_released_bundle_150_mb_are_enough_and_torch_is_never_imported(
    tmp_path: Path,
) -> None:
    assert DEMO_CLIP.is_file(), "the demo clip is not there; `make test` fetches it"
    released = BundleRepository(ROOT / "bundles", EDGE_FILES).bundles[0]
    async with running_recognizer(released.folder) as recognizer:
        server = f"127.0.0.1:{recognizer.serving.port}"
        arguments = ("run", "--source", str(DEMO_CLIP), "--server", server, "--bundle")
        more = ("--spool", str(tmp_path / "spool"))
        code, found, log = await finished("-c", MEASURE, *arguments, str(released.folder), *more)
    assert code == 0, log
    (measured,) = named(found, "measured")
    assert measured["code"] == ExitCode.OK, log
    assert not measured["torch"]
    assert measured["peak_mb"] <= 150
    faces = named(found, "recognition")
    assert len({face["frame"] for face in faces}) >= 115
    assert len({face["track_id"] for face in faces}) <= 2


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, ExitCode.OK), (signal.SIGINT, ExitCode.INTERRUPTED)]
)
async def test_asked_to_stop_it_sends_what_it_has_and_sums_up(
    recognizer: Running, bundle: Bundle, tmp_path: Path, number: signal.Signals, code: ExitCode
) -> None:
    pictures = [Scene().picture(60, 60), Scene().picture(62, 60)] * 400
    long = film(tmp_path / "long.mp4", pictures)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "edge_encoder.cli", "run", "--pace", "true"),
        *("--source", str(long), "--bundle", str(bundle.folder)),
        *("--server", f"127.0.0.1:{recognizer.serving.port}"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdout is not None
    found = []
    asked = False
    async for line in process.stdout:
        found.append(json.loads(line))
        if len(named(found, "recognition")) == 8 and not asked:
            asked = True  # once: a second signal ends the process at once
            process.send_signal(number)
    assert await process.wait() == code
    summary = found[-1]
    assert summary["event"] == "summary"
    assert 8 <= summary["frames"] < len(pictures)
    assert summary["faces_recognised"] == summary["faces_sent"] == summary["frames"]


async def test_nobody_reading_the_results_is_no_error(
    recognizer: Running, bundle: Bundle, clip: Path
) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "edge_encoder.cli", "run", "--log_level", "error"),
        *("--source", str(clip), "--bundle", str(bundle.folder)),
        *("--server", f"127.0.0.1:{recognizer.serving.port}"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    await process.stdout.readline()
    process._transport.get_pipe_transport(1).close()  # type: ignore[attr-defined]
    log = (await process.stderr.read()).decode()
    assert await process.wait() == ExitCode.OK, log
    assert "Traceback" not in log
