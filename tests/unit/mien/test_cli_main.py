"""`mien` itself: what it loads, what it says, how it ends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mien.bundle import Bundle
from mien.cli.demo import DemoOptions
from mien.cli.main import main
from tests.support.tiny_bundle import make_tiny_bundle

HEAVY = ("cv2", "grpc", "jsonargparse", "matplotlib", "onnxruntime", "rich", "torch", "yaml")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_tiny_bundle(tmp_path_factory.mktemp("bundle"))


def without(packages: tuple[str, ...], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `mien` where these packages cannot be imported."""
    script = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({packages!r}))\n"
        "from mien.cli.main import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_inspect_needs_nothing_but_the_bare_install(bundle: Bundle) -> None:
    ran = without(HEAVY, "inspect", str(bundle.folder))
    assert ran.returncode == 0, ran.stderr
    assert bundle.bundle_id in ran.stdout


@pytest.mark.parametrize("command", ["demo", "recognize", "watch", "inspect", "bundles"])
def test_help_needs_nothing_but_the_bare_install(command: str) -> None:
    ran = without(HEAVY, command, "--help")
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize(
    ("arguments", "extras"),
    [
        (["watch", "--server", "127.0.0.1:1"], "cli"),
        (["recognize", "a.png", "--server", "127.0.0.1:1"], "edge,cli"),
    ],
)
def test_a_missing_package_is_named_with_the_extras_that_bring_it(
    arguments: list[str], extras: str
) -> None:
    ran = without(("grpc",), *arguments)
    assert ran.returncode == 1
    assert "grpc" in ran.stderr
    assert f"'.[{extras}]'" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_file_that_is_not_there_is_exit_code_3(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "nothing.bin"]) == 3
    assert "nothing.bin cannot be read" in capsys.readouterr().err


def test_a_damaged_bundle_is_exit_code_5(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = make_tiny_bundle(tmp_path)
    with damaged.path("analysis.onnx").open("ab") as file:
        file.write(b"x")
    assert main(["inspect", str(tmp_path)]) == 5
    assert "get it again" in capsys.readouterr().err


def test_a_damaged_payload_is_exit_code_1(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "chunk.bin"
    file.write_bytes(b"abc")
    assert main(["inspect", str(file), "--bundle", str(bundle.folder)]) == 1
    assert "mien inspect: a payload has at least 4 bytes" in capsys.readouterr().err


def test_the_demo_s_title_has_no_password_of_its_camera() -> None:
    options = DemoOptions("rtsp://admin:P@ssw0rd@10.0.0.5/live?pwd=again", Path("out"))
    assert options.title == "mien demo · rtsp://10.0.0.5/live"


def test_a_wrong_flag_is_exit_code_2() -> None:
    with pytest.raises(SystemExit) as ended:
        main(["demo", "--nothing"])
    assert ended.value.code == 2


def test_a_reader_that_has_gone_is_no_error(bundle: Bundle) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "mien.cli.main", "inspect", str(bundle.folder)]
    ran = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (ran.returncode, ran.stderr) == (0, "")
