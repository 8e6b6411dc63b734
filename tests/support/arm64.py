"""An arm64 Linux without the hardware: Debian's Python and PyPI's wheels under qemu's user mode.

Nothing is installed: all of it is fetched into .cache/arm64 once, and unpacked there. For
containers the kernel is told of the emulator, and starts arm64 programs by itself meanwhile.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path

from tests.support import debian

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache" / "arm64"
PYTHON = "3.11"  # that of Debian's suite
QEMU_SUITE = "trixie"
# What its own Python and the wheels load: they bring the rest.
PACKAGES = "python3,libstdc++6"
# onnxruntime 1.31 crashed under qemu 7.2, which bookworm has.
WHEELS = {"numpy": "", "numba": "", "onnxruntime": "1.27.*"}
FETCH_TIMEOUT_S = 600
_BINFMT = Path("/proc/sys/fs/binfmt_misc")
# How a program or shared object for aarch64 begins (ELF of 64 bits), and what of that counts.
_MAGIC = r"\x7fELF\x02\x01\x01" + r"\x00" * 9 + r"\x02\x00\xb7\x00"
_MASK = r"\xff" * 7 + r"\x00" + r"\xff" * 8 + r"\xfe\xff\xff\xff"


def why_not() -> str | None:
    """Why there is no arm64 to be had here; None where there may be."""
    if (missing := debian.why_not()) is not None:
        return missing
    if os.getuid():
        return "mmdebstrap unpacks an arm64 system as root only"
    return None


def why_not_in_containers() -> str | None:
    """Why the kernel cannot start arm64 programs by itself; None where it may."""
    if "binfmt_misc" not in Path("/proc/filesystems").read_text():
        return "this kernel has no binfmt_misc"
    return why_not()


@contextmanager
def started_by_kernel() -> Iterator[None]:
    """Meanwhile this machine's kernel starts arm64 programs as its own, those of containers too.

    Raises CalledProcessError or OSError where it may not be told to.
    """
    emulator = qemu()
    if not (_BINFMT / "register").exists():
        mount = ["mount", "-t", "binfmt_misc", "binfmt_misc", str(_BINFMT)]
        subprocess.run(mount, check=True, capture_output=True)
    handler = _BINFMT / "mien-arm64"
    if handler.exists():  # of a run that was killed
        handler.write_text("-1")
    # F: the emulator is opened now, from here; a container does not have it.
    (_BINFMT / "register").write_text(f":{handler.name}:M::{_MAGIC}:{_MASK}:{emulator}:F")
    try:
        yield
    finally:
        handler.write_text("-1")


class Arm64:
    """The machine. Raises CalledProcessError where something cannot be fetched."""

    def __init__(self) -> None:
        self._qemu = qemu()
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


def qemu() -> Path:
    """The emulator, a static program. Raises CalledProcessError where it cannot be fetched."""
    CACHE.mkdir(parents=True, exist_ok=True)
    folder = CACHE / f"qemu-{QEMU_SUITE}"
    if not folder.is_dir():
        _fetched(folder, _unpack_qemu)
    return folder / "qemu-aarch64"


def _unpack_qemu(folder: Path) -> None:
    whole = folder / "whole"
    debian.tree("qemu-user", whole, suite=QEMU_SUITE)
    shutil.move(whole / "usr" / "bin" / "qemu-aarch64", folder)
    shutil.rmtree(whole)  # emulators of everything else


def _unpack_system(folder: Path) -> None:
    debian.tree(PACKAGES, folder, architecture="arm64")


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
