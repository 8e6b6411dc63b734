"""An arm64 Linux without the hardware: Debian's Python and PyPI's wheels under qemu's user mode.

Nothing is installed: all of it is fetched into .cache/arm64 once, and unpacked there.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache" / "arm64"
SUITE = "bookworm"
PYTHON = "3.11"  # that of the suite
# What its own Python and the wheels load: they bring the rest.
PACKAGES = "python3,libstdc++6"
# onnxruntime 1.31 crashes under this suite's qemu 7.2.
WHEELS = {"numpy": "", "numba": "", "onnxruntime": "1.27.*"}
FETCH_TIMEOUT_S = 600


def why_not() -> str | None:
    """Why there is no arm64 to be had here; None where there may be."""
    for tool in ("mmdebstrap", "dpkg-deb", "apt-get"):
        if shutil.which(tool) is None:
            return f"no {tool}: the lab's arm64 is made of Debian's packages"
    if os.getuid():
        return "mmdebstrap unpacks an arm64 system as root only"
    return None


class Arm64:
    """The machine. Raises CalledProcessError where something cannot be fetched."""

    def __init__(self) -> None:
        CACHE.mkdir(parents=True, exist_ok=True)
        self._qemu = CACHE / "qemu" / "usr" / "bin" / "qemu-aarch64-static"
        if not self._qemu.is_file():
            _fetched(CACHE / "qemu", _unpack_qemu)
        self._system = CACHE / "system"
        if not self._system.is_dir():
            _fetched(self._system, _unpack_system)

    def with_wheels(self, *names: str) -> "Arm64":
        """Fetch the wheels of these packages, in the versions that are installed here."""
        for name in names:
            if not self._site(name).is_dir():
                wanted = f"{name}=={WHEELS[name] or version(name)}"
                _fetched(self._site(name), partial(_unpack, wanted))
        return self

    def run(self, arguments: Sequence[str], wheels: Sequence[str], timeout_s: float) -> str:
        """What Python prints there, told these arguments, with the repository in its path."""
        sites = [str(self._site(name)) for name in wheels]
        settings = {
            "PYTHONPATH": ":".join([*sites, str(ROOT)]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "NUMBA_CACHE_DIR": str(CACHE / "numba"),
        }
        command = [str(self._qemu), "-L", str(self._system)]
        for name, value in settings.items():
            command += ["-E", f"{name}={value}"]
        python = self._system / "usr" / "bin" / f"python{PYTHON}"
        return _run([*command, str(python), *arguments], timeout_s)

    @staticmethod
    def _site(name: str) -> Path:
        return CACHE / f"{name}-{WHEELS[name].strip('.*') or version(name)}"


def _fetched(folder: Path, fetch: Callable[[Path], None]) -> None:
    """Fetch beside and move over: what was interrupted is not taken for whole."""
    with tempfile.TemporaryDirectory(dir=CACHE) as name:
        unfinished = Path(name) / "unfinished"
        unfinished.mkdir()
        fetch(unfinished)
        unfinished.rename(folder)


def _unpack_qemu(folder: Path) -> None:
    _run(["apt-get", "download", "-qq", "qemu-user-static"], FETCH_TIMEOUT_S, folder)
    (package,) = folder.glob("*.deb")
    _run(["dpkg-deb", "--extract", str(package), str(folder)], FETCH_TIMEOUT_S)
    package.unlink()


def _unpack_system(folder: Path) -> None:
    options = ["--quiet", "--architectures=arm64", "--variant=extract", f"--include={PACKAGES}"]
    _run(["mmdebstrap", *options, SUITE, str(folder)], FETCH_TIMEOUT_S)


def _unpack(wheel: str, folder: Path) -> None:
    platforms = [f"--platform=manylinux_2_{minor}_aarch64" for minor in (17, 26, 27, 28)]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--only-binary=:all:"]
    _run(
        [*pip, *platforms, f"--python-version={PYTHON}", f"--target={folder}", wheel],
        FETCH_TIMEOUT_S,
    )


def _run(command: Sequence[str], timeout_s: float, folder: Path | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, cwd=folder)
    if done.returncode:
        raise subprocess.CalledProcessError(
            done.returncode, command, done.stdout, done.stderr[-2000:]
        )
    return done.stdout
