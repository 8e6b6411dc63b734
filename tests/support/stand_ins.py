"""The public images that the deployment names: those that are here, pulled, or stood in for.

Where no registry of images is reached, an image with the same name and the same program is made of
what packages bring: Debian's Python, Prometheus and Alertmanager, and wheels with NATS and Envoy.
What is built on them and how they are started is the same. Their size is not, nor are two versions:

              named    Debian's
Prometheus    2.55.1   2.42.0    has all that deploy/prometheus and the image's own flags ask for
Alertmanager  0.28.1   0.25.0    reads matchers by an older grammar; deploy/alertmanager has none
"""

import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path

import pytest

from tests.support import debian
from tests.support.podman import Podman

PYTHON = "docker.io/library/python:3.11-slim-bookworm"
NATS = "docker.io/library/nats:2.15-alpine"
ENVOY = "docker.io/envoyproxy/envoy:v1.40-latest"
# A name has one platform in a store, so this one is never pulled.
PYTHON_ARM64 = "localhost/python-arm64:3.11-slim-bookworm"
PROMETHEUS = "docker.io/prom/prometheus:v2.55.1"
ALERTMANAGER = "docker.io/prom/alertmanager:v0.28.1"
PULL_S = 300.0

# As Debian's slim images leave out; Python's own image has pip, too. This machine's certificates
# replace Debian's, whose sorting in takes qemu minutes.
_LEFT_OUT = ("doc", "man", "locale", "info", "ca-certificates")
_PYTHON = """\
FROM {base}
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
RUN rm -f /usr/lib/python3.11/EXTERNALLY-MANAGED \\
    && ln -s /usr/bin/python3.11 /usr/local/bin/python \\
    && ln -s /usr/bin/python3.11 /usr/local/bin/python3.11 \\
    && python -c "import glob, zipfile; zipfile.ZipFile(\\
glob.glob('/usr/share/python-wheels/pip-*.whl')[0]).extractall('/usr/local/lib/python3.11/dist-packages')"
CMD ["python3"]
"""
# As the project's own images: what they are started with, by whom, a wget for health checks. Left
# out are the flags of Prometheus's consoles, pages that Debian's package has elsewhere.
_MONITOR = """\
FROM {base}
COPY busybox /usr/local/bin/wget
COPY {program} /bin/{name}
COPY share /usr/share/prometheus
RUN install --directory --owner nobody /{name}
USER nobody
VOLUME /{name}
WORKDIR /{name}
ENTRYPOINT ["/bin/{name}"]
CMD ["--config.file=/etc/{name}/{name}.yml", "--storage.{store}=/{name}"]
"""


def provide(podman: Podman, image: str) -> None:
    """See that the store has an image; skips the test where that cannot be."""
    if podman.has_image(image):
        return
    try:
        podman.outside("pull", "--quiet", image, patience_s=PULL_S)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        if debian.why_not() is not None:
            pytest.skip(f"{image} cannot be pulled, nor stood in for: {debian.why_not()}")
        with tempfile.TemporaryDirectory() as folder:
            _STAND_INS[image](podman, image, Path(folder))


def _python(podman: Podman, image: str, folder: Path, architecture: str | None = None) -> None:
    packed = folder / "base.tar"
    left_out = [f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in _LEFT_OUT]
    packages = "python3,python3-venv,ca-certificates"
    debian.tree(packages, packed, *left_out, variant="minbase", architecture=architecture)
    base = f"localhost/debian-python-{architecture or 'own'}"
    of_it = [f"--arch={architecture}"] if architecture else []
    podman.outside("import", "--quiet", *of_it, str(packed), base)
    packed.unlink()  # or it is sent to the build with the rest
    # What this machine trusts: its packages may come through a mirror of its own.
    shutil.copy("/etc/ssl/certs/ca-certificates.crt", folder)
    _build(podman, image, folder, _PYTHON.format(base=base), *of_it)


def _python_arm64(podman: Podman, image: str, folder: Path) -> None:
    _python(podman, image, folder, "arm64")


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


def _prometheus(podman: Podman, image: str, folder: Path) -> None:
    _monitor(podman, image, folder, "prometheus", "prometheus", "tsdb.path")


def _alertmanager(podman: Podman, image: str, folder: Path) -> None:
    _monitor(podman, image, folder, "prometheus-alertmanager", "alertmanager", "path")


def _monitor(podman: Podman, image: str, folder: Path, package: str, name: str, store: str) -> None:
    """One of Debian's packages, whose program has the package's name and needs glibc at most."""
    tree = folder / "tree"
    debian.tree(f"{package},busybox-static", tree)
    for program in (tree / "usr" / "bin" / package, tree / "bin" / "busybox"):
        shutil.move(program, folder)
    # Debian's Alertmanager does not start without its templates, which upstream's has built in.
    shutil.move(tree / "usr" / "share" / "prometheus", folder / "share")
    shutil.rmtree(tree)  # or it is sent to the build with the rest
    dockerfile = _MONITOR.format(base=PYTHON, program=package, name=name, store=store)
    _build(podman, image, folder, dockerfile)


def _build(podman: Podman, image: str, folder: Path, dockerfile: str, *more: str) -> None:
    (folder / "Dockerfile").write_text(dockerfile)
    podman.outside("build", "--quiet", "--network", "host", *more, "--tag", image, str(folder))


_STAND_INS = {
    PYTHON: _python,
    PYTHON_ARM64: _python_arm64,
    NATS: _nats,
    ENVOY: _envoy,
    PROMETHEUS: _prometheus,
    ALERTMANAGER: _alertmanager,
}
