"""The public images that the deployment names: those that are here, pulled, or stood in for.

Where no registry of images is reached, an image with the same name and the same program is made of
what packages bring: Debian's Python, and wheels with NATS and Envoy. What is built on them and how
they are started is the same; their size is not.
"""

import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path

import pytest

from tests.support.podman import Podman

PYTHON = "docker.io/library/python:3.11-slim-bookworm"
NATS = "docker.io/library/nats:2.15-alpine"
ENVOY = "docker.io/envoyproxy/envoy:v1.40-latest"
PULL_S = 300.0

# As Debian's slim images leave out; Python's own image has pip, too.
_LEFT_OUT = ("doc", "man", "locale", "info")
_PYTHON = """\
FROM localhost/debian-python
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
RUN rm -f /usr/lib/python3.11/EXTERNALLY-MANAGED \\
    && ln -s /usr/bin/python3.11 /usr/local/bin/python \\
    && ln -s /usr/bin/python3.11 /usr/local/bin/python3.11 \\
    && python -c "import glob, zipfile; zipfile.ZipFile(\\
glob.glob('/usr/share/python-wheels/pip-*.whl')[0]).extractall('/usr/local/lib/python3.11/dist-packages')"
CMD ["python3"]
"""


def provide(podman: Podman, image: str) -> None:
    """See that the store has an image; skips the test where that cannot be."""
    if podman.has_image(image):
        return
    try:
        podman.outside("pull", "--quiet", image, patience_s=PULL_S)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        with tempfile.TemporaryDirectory() as folder:
            _STAND_INS[image](podman, image, Path(folder))


def _python(podman: Podman, image: str, folder: Path) -> None:
    if shutil.which("mmdebstrap") is None:
        pytest.skip(f"{image} cannot be pulled, nor stood in for without mmdebstrap")
    tree = folder / "base.tar"
    left_out = [f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in _LEFT_OUT]
    wanted = "--include=python3,python3-venv,ca-certificates"
    command = ["mmdebstrap", "--variant=minbase", wanted, *left_out, "bookworm", str(tree)]
    subprocess.run(command, check=True, capture_output=True)
    podman.outside("import", "--quiet", str(tree), "localhost/debian-python")
    # What this machine trusts: its packages may come through a mirror of its own.
    shutil.copy("/etc/ssl/certs/ca-certificates.crt", folder)
    _build(podman, image, folder, _PYTHON)


def _program(program: Path, name: str) -> str:
    """A Dockerfile with one program that needs glibc at most."""
    return f"FROM {PYTHON}\nCOPY {program.name} /usr/local/bin/{name}\n"


def _nats(podman: Podman, image: str, folder: Path) -> None:
    program = Path(sysconfig.get_path("scripts")) / "nats-server"
    shutil.copy(program, folder)
    _build(podman, image, folder, _program(program, "nats-server"))


def _envoy(podman: Podman, image: str, folder: Path) -> None:
    program = Path(sysconfig.get_path("purelib")) / "envoy" / "_bin" / "envoy"
    shutil.copy(program, folder)
    _build(podman, image, folder, _program(program, "envoy"))


def _build(podman: Podman, image: str, folder: Path, dockerfile: str) -> None:
    (folder / "Dockerfile").write_text(dockerfile)
    podman.outside("build", "--quiet", "--network", "host", "--tag", image, str(folder))


_STAND_INS = {PYTHON: _python, NATS: _nats, ENVOY: _envoy}
