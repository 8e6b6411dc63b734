"""`mien-edge fleet`: real processes, a real recognizer, cameras that are real to their readers."""

import json
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from edge_encoder.cli import main
from mien.bundle import Bundle
from mien.exit_codes import ExitCode
from tests.support.fleet import Fleet, fleet, is_alive
from tests.support.mjpeg_camera import MjpegCamera, walking
from tests.support.recognizer import Running, eventually, running_recognizer
from tests.unit.edge_encoder.conftest import CLIP_FRAMES

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="/proc, and the leash of Linux"
)


@pytest.fixture
async def recognizer(bundle: Bundle) -> AsyncIterator[Running]:
    async with running_recognizer(bundle.folder) as running:
        yield running


@pytest.fixture
def urls() -> Iterator[list[str]]:
    """Three cameras that film something else all the time, ten frames a second."""
    with ExitStack() as stack:
        yield [stack.enter_context(MjpegCamera(frame_s=0.1).on()) for _ in range(3)]


class CamerasYaml:
    """The file, as its operator writes it: YAML, of which JSON is a part."""

    def __init__(self, path: Path, recognizer: Running, bundle: Bundle) -> None:
        self.path = path
        self.defaults: dict[str, Any] = {
            "server": f"127.0.0.1:{recognizer.serving.port}",
            "bundle": str(bundle.folder),
        }

    def write(self, **cameras: Any) -> None:
        """At once: a name that a new file gets is never half a file."""
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps({"defaults": self.defaults, "cameras": cameras}))
        new.rename(self.path)


@pytest.fixture
def yaml(tmp_path: Path, recognizer: Running, bundle: Bundle) -> CamerasYaml:
    return CamerasYaml(tmp_path / "cameras.yaml", recognizer, bundle)


async def delivering(running: Fleet, *cameras: str, after: int = 0) -> None:
    for camera in cameras:
        await running.said("source", camera=camera, state="delivering", after=after)
        await running.said("started", camera=camera, after=after)


async def test_a_process_that_is_killed_comes_back_and_the_others_do_not_notice(
    yaml: CamerasYaml, urls: list[str], tmp_path: Path
) -> None:
    yaml.write(door={"source": urls[0]}, yard={"source": urls[1]})
    async with fleet(yaml.path, tmp_path / "log") as running:
        await delivering(running, "door", "yard")
        door, yard = running.pid("door"), running.pid("yard")
        page = await running.metrics()
        assert page['mien_edge_fleet_camera_up{camera="door"}'] == 1
        assert 0 < page['mien_edge_camera_health{camera="door"}'] <= 1
        assert 0 < page['mien_edge_camera_health{camera="yard"}'] <= 1
        assert page['mien_edge_fleet_restarts_total{camera="door",reason="signal"}'] == 0
        mark = len(running.events)
        os.kill(door, signal.SIGKILL)
        failed = await running.said("process", camera="door", state="failed")
        assert (failed["code"], failed["reason"]) == (-signal.SIGKILL, "signal")
        await delivering(running, "door", after=mark)
        assert running.pid("door") != door
        assert running.pid("yard") == yard
        assert is_alive(yard)
        page = await running.metrics()
    assert page['mien_edge_fleet_restarts_total{camera="door",reason="signal"}'] == 1
    assert page['mien_edge_fleet_restarts_total{camera="yard",reason="signal"}'] == 0
    assert page['mien_edge_fleet_camera_up{camera="door"}'] == 1


async def test_a_new_file_is_applied_camera_by_camera_and_a_wrong_one_is_not(
    yaml: CamerasYaml, urls: list[str], tmp_path: Path
) -> None:
    yaml.write(stays={"source": urls[0]}, changes={"source": urls[1]}, goes={"source": urls[2]})
    async with fleet(yaml.path, tmp_path / "log") as running:
        await delivering(running, "stays", "changes", "goes")
        first = {name: running.pid(name) for name in ("stays", "changes", "goes")}

        mark = len(running.events)
        yaml.write(stays={"source": urls[0]}, changes={"source": urls[1], "max_faces": "many"})
        refused = await running.said("config", outcome="refused", after=mark)
        assert "cameras.changes" in refused["error"]
        assert "max_faces" in refused["error"]
        page = await running.metrics()
        assert page["mien_edge_fleet_config_is_newest"] == 0
        assert page['mien_edge_fleet_configs_total{outcome="refused"}'] == 1
        assert all(is_alive(pid) for pid in first.values())
        assert len(running.named("process", state="started")) == 3

        mark = len(running.events)
        yaml.write(
            stays={"source": urls[0]},
            changes={"source": urls[1], "max_faces": 2},
            comes={"source": urls[2]},
        )
        applied = await running.said("config", outcome="applied", after=mark)
        assert (applied["added"], applied["changed"], applied["removed"]) == (
            ["comes"],
            ["changes"],
            ["goes"],
        )
        await delivering(running, "changes", "comes", after=mark)
        assert running.pid("stays") == first["stays"]
        assert is_alive(first["stays"])
        assert running.pid("changes") != first["changes"]
        assert not is_alive(first["changes"])
        assert not is_alive(first["goes"])
        page = await running.metrics()
    assert page["mien_edge_fleet_config_is_newest"] == 1
    assert page['mien_edge_fleet_configs_total{outcome="applied"}'] == 2
    cameras = {line.partition('camera="')[2].partition('"')[0] for line in page} - {""}
    assert cameras == {"stays", "changes", "comes"}
    log = (tmp_path / "log").read_text()
    assert "the new configuration is refused, the old one stays: cameras.changes" in log


async def test_sighup_reads_the_file_again(
    yaml: CamerasYaml, urls: list[str], tmp_path: Path
) -> None:
    yaml.write()
    async with fleet(yaml.path, tmp_path / "log") as running:
        await running.said("config", outcome="applied")
        mark = len(running.events)
        running.process.send_signal(signal.SIGHUP)  # nothing has changed, and yet it is read
        applied = await running.said("config", outcome="applied", after=mark)
        assert applied["added"] == applied["changed"] == applied["removed"] == []


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, ExitCode.OK), (signal.SIGINT, ExitCode.INTERRUPTED)]
)
async def test_asked_to_stop_it_stops_its_cameras_in_order(
    yaml: CamerasYaml, tmp_path: Path, number: signal.Signals, code: ExitCode
) -> None:
    with MjpegCamera(walking, frame_s=0.1).on() as url:
        yaml.write(door={"source": url})
        async with fleet(yaml.path, tmp_path / "log") as running:
            await running.said("recognition", camera="door")
            pid = running.pid("door")
            assert await running.stop(number) == code
    (summary,) = running.named("summary", camera="door")
    assert summary["faces_recognised"] == summary["faces_sent"] > 0
    assert running.named("process", camera="door", state="stopped", code=0)
    assert not is_alive(pid)


async def test_cameras_do_not_outlive_a_supervisor_that_is_killed(
    yaml: CamerasYaml, urls: list[str], tmp_path: Path
) -> None:
    yaml.write(door={"source": urls[0]})
    async with fleet(yaml.path, tmp_path / "log") as running:
        await delivering(running, "door")
        pid = running.pid("door")
        running.process.kill()
        await running.process.wait()
        await eventually(lambda: not is_alive(pid))


async def test_a_file_ends_at_its_end_and_is_not_started_again(
    yaml: CamerasYaml, clip: Path, tmp_path: Path
) -> None:
    yaml.write(film={"source": str(clip)}, nothing={"source": str(tmp_path / "nothing.mp4")})
    async with fleet(yaml.path, tmp_path / "log") as running:
        await running.said("process", camera="film", state="ended")
        failed = await running.said("process", camera="nothing", state="failed")
        assert failed["reason"] == "source"
        page = await running.metrics()
    assert page['mien_edge_fleet_camera_up{camera="film"}'] == 0
    assert len(running.named("process", camera="film", state="started")) == 1
    faces = running.named("recognition", camera="film")
    assert [face["frame"] for face in faces] == list(range(CLIP_FRAMES))


async def test_passwords_are_in_no_command_line_no_environment_and_no_log(
    yaml: CamerasYaml, tmp_path: Path
) -> None:
    yaml.write(door={"source": "rtsp://admin:geheim@127.0.0.1:9/live", "open_timeout_s": 1})
    async with fleet(yaml.path, tmp_path / "log") as running:
        await running.said("source", camera="door", state="lost")
        process = Path(f"/proc/{running.pid('door')}")
        assert stat.S_ISFIFO((process / "fd/0").stat().st_mode)
        for name in ("cmdline", "environ"):
            assert b"geheim" not in (process / name).read_bytes()
    assert "geheim" not in (tmp_path / "log").read_text()
    assert "geheim" not in json.dumps(running.events)


@pytest.mark.parametrize(
    ("text", "message"),
    [("cameras: {a: {source: x, fps: 3}}", "fps is no setting"), (None, "cannot be read")],
)
def test_a_file_that_is_wrong_from_the_start_is_exit_code_2(
    text: str | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "cameras.yaml"
    if text is not None:
        path.write_text(text)
    assert main(["fleet", "--cameras", str(path)]) == ExitCode.USAGE
    assert message in capsys.readouterr().err
