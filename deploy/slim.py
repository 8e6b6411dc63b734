"""Take out of an image's environment what no service ever loads, and see that the rest still loads.

    python slim.py VENV --without PACKAGE … --loads MODULE …

A fifth of what the wheels bring is for building wheels, for tests or for other languages. What is
named here and not there is no error: another version may not bring it. What is taken out and needed
after all is one: `--loads` imports the modules that the service stands on, in the environment as it
is then.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

# Below site-packages. Why each may go:
NEVER_LOADED = (
    *("pip", "setuptools", "pkg_resources", "_distutils_hack", "distutils-precedence.pth"),
    *("pip-*.dist-info", "setuptools-*.dist-info"),  # the image is never installed into again
    "**/tests",  # the packages' own
    *("numpy/f2py", "numpy/distutils"),  # compile Fortran
    "cv2/data",  # Haar cascades; faces are found by networks
    # For C++ programs, and a server of Arrow's own.
    *("pyarrow/include", "pyarrow/src", "pyarrow/libarrow_flight.so.*", "pyarrow/_flight*"),
    *(f"onnxruntime/{part}" for part in ("transformers", "quantization", "tools", "datasets")),
    *("nvidia/*/include", "nvidia/*/lib/*.a"),  # for compilers
    "onnxruntime/capi/libonnxruntime.so.*",  # for C programs: the Python module has it built in
)


def slim(site_packages: Path, without: list[str]) -> int:
    """Remove what is never loaded, and these packages; returns the bytes that went."""
    removed = 0
    for pattern in (*NEVER_LOADED, *without):
        for path in list(site_packages.glob(pattern)):
            removed += _size(path)
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return removed


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_size for file in files if not file.is_dir())


def main() -> None:
    """Slim the environment; ends with what cannot be loaded, where there is something."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("venv", type=Path)
    parser.add_argument("--without", nargs="*", default=[], help="packages of this repository")
    parser.add_argument("--loads", nargs="+", required=True, help="modules that must still load")
    given = parser.parse_args()
    (site_packages,) = given.venv.glob("lib/python3*/site-packages")
    removed = slim(site_packages, given.without)
    sys.stdout.write(f"{removed / 1e6:.0f} MB taken out of {site_packages}\n")
    imports = f"import {', '.join(given.loads)}"
    sys.exit(subprocess.run([given.venv / "bin" / "python", "-c", imports], check=False).returncode)  # noqa: S603


if __name__ == "__main__":
    main()
