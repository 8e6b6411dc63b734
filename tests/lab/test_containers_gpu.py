"""The recognizer's image for GPUs: built and, where there is none, run as far as one can."""

import subprocess
from collections.abc import Iterator

import pytest

from tests.support.containers import MARKS, not_kept, said_of_itself, until_healthy
from tests.support.lab import Lab
from tests.support.podman import Podman

pytestmark = MARKS
IMAGE = "localhost/mien-cloud-gpu"
DRIVER = "libcuda.so.1"  # the host's, never an image's
READ_ONLY = ("--read-only", "--tmpfs=/tmp")
SERVE = ("serve", "--bundles=/bundles")  # on loopback, and so without TLS
# Each library of the wheels, after ONNX Runtime has loaded what it wants. Prints what is missing.
_LOAD_ALL = f"""
import ctypes, pathlib, onnxruntime
onnxruntime.preload_dlls()
libraries = list(pathlib.Path("/opt/mien/lib").rglob("nvidia/*/lib/*.so*"))
libraries += pathlib.Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime_providers_cuda.so")
for library in libraries:
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        if not str(error).startswith("{DRIVER}:"):
            print(library.name, error)
print(len(libraries), "CUDAExecutionProvider" in onnxruntime.get_available_providers())
"""


@pytest.fixture(scope="module")
def image(store: Podman) -> Iterator[str]:
    with not_kept(store, "cloud-gpu.Dockerfile", IMAGE):
        yield IMAGE


def test_the_gpu_recognizer_lacks_nothing_but_the_hosts_driver(
    podman: Podman, lab: Lab, image: str
) -> None:
    assert said_of_itself(podman, image)[1:] == ["10001", "False"]
    loaded = podman.run("run", "--rm", "--read-only", "--entrypoint=python", image, "-c", _LOAD_ALL)
    libraries, provider = loaded.split()  # and no line about any that did not load
    assert int(libraries) > 10
    assert provider == "True"

    with pytest.raises(subprocess.CalledProcessError, match="provider is cuda") as refused:
        podman.run("run", "--rm", *READ_ONLY, image, *SERVE, "--provider=cuda")
    assert DRIVER in str(refused.value)
    lab.entry.rows = [("MB", round(podman.size_mb(image))), ("libraries", int(libraries))]


def test_where_it_is_let_it_serves_on_the_processor(podman: Podman, lab: Lab, image: str) -> None:
    """`--provider auto`, and everything else as the image has it."""
    podman.run("run", "--detach", "--name=gpu", *READ_ONLY, image, *SERVE, "--provider=auto")
    until_healthy(podman, "gpu")
    assert '"providers": ["CPUExecutionProvider"]' in podman.logs("gpu")
    lab.entry.rows = [("provider", "CPUExecutionProvider")]
