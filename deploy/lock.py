"""Write deploy/requirements/*.txt: what each image installs, every file by its SHA-256.

    make lock

Needs the package index. Takes the latest releases that pyproject.toml allows, for the Python and
the platform of the images; arm64 has the same releases. A test holds the files against pyproject.
No wheel is downloaded for it, however large: hashes and what a wheel asks for are in the index.
"""

import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
FOLDER: Final = ROOT / "deploy" / "requirements"
PYTHON: Final = "3.11"


_SERVICE: Final = ("nats", "page", "tracing", "archive")
# What each image installs: mien with these extras.
IMAGES: Final[Mapping[str, Sequence[str]]] = {
    "edge": ("edge", "tracing"),
    "cloud": ("cloud", *_SERVICE),
    "cloud-gpu": ("cloud-gpu", *_SERVICE),
    "trainer": ("trainer",),
}
# What makes mien's wheel and the bill of materials, and is in no image.
BUILD: Final = "build"
BILL: Final = "cyclonedx-bom>=7"


def build_requirements() -> list[str]:
    """What `build.txt` is locked from."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return [*project["build-system"]["requires"], BILL]


def lock(name: str, arguments: Sequence[str], given: Sequence[str] = ()) -> None:
    """Resolve and write one file, given further lines. Raises CalledProcessError when uv cannot."""
    command = [
        *(sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--upgrade"),
        *("--generate-hashes", "--no-header", "--python-version", PYTHON),
        *("--python-platform", "x86_64-manylinux_2_28"),
        *("--output-file", str(FOLDER / f"{name}.txt"), *arguments, "-"),
    ]
    subprocess.run(command, cwd=ROOT, input="\n".join(given), text=True, check=True)  # noqa: S603


def main() -> None:
    """Write them all."""
    for name, extras in IMAGES.items():
        lock(name, ["pyproject.toml", *(f"--extra={extra}" for extra in extras)])
    lock(BUILD, [], build_requirements())


if __name__ == "__main__":
    main()
