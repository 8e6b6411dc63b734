"""The device's image for arm64: built and run where there is none, the kernel helped by qemu."""

import json
import platform
from collections.abc import Iterator

import pytest

from tests.support import arm64
from tests.support.containers import CLIP_FACES, MARKS, OWN_MB, said_of_itself, until_healthy
from tests.support.lab import Lab
from tests.support.podman import Podman
from tests.support.stand_ins import PYTHON_ARM64, provide

pytestmark = [
    *MARKS,
    pytest.mark.skipif(
        arm64.why_not_in_containers() is not None, reason=str(arm64.why_not_in_containers())
    ),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="test_containers builds for arm64"),
]
IMAGE = "localhost/mien-edge-arm64"


@pytest.fixture
def device(podman: Podman) -> Iterator[str]:
    """The device's image with the demo clip, while its programs can be started."""
    with arm64.started_by_kernel():
        provide(podman, PYTHON_ARM64)
        base = f"--build-arg=BASE={PYTHON_ARM64}"
        wanted = ("--platform=linux/arm64", "--target=demo", base)
        podman.build_file("edge.Dockerfile", IMAGE, *wanted)
        yield IMAGE


def test_an_arm64_device_is_small_and_the_clip_is_recognised_to_the_last_face(
    podman: Podman, lab: Lab, device: str
) -> None:
    podman.compose("up", "--detach", "cloud")
    until_healthy(podman, *podman.containers("cloud"))
    printed = podman.run(
        *("run", "--rm", "--platform=linux/arm64", "--network=host", "--read-only", "--tmpfs=/tmp"),
        *("--volume=encoders:/var/lib/mien", device, "run", "--server=127.0.0.1:50051"),
        # As fast as it goes, and patient: under qemu it is far slower than any device.
        *("--source=/clips/carphone_pristine.mp4", "--context=demonstration", "--give_up_s=600"),
        *("--purpose=demonstration of a public test clip", "--notice=published as a test sequence"),
        *("--answer_timeout_s=300", "--welcome_timeout_s=300", "--rate_control=false"),
    )
    summary = json.loads(printed.splitlines()[-1])
    assert summary["event"] == "summary"
    assert (summary["faces_sent"], summary["faces_recognised"]) == (CLIP_FACES, CLIP_FACES)
    assert (summary["drops"], summary["errors"]) == ({}, {})

    said = said_of_itself(podman, device, "--platform=linux/arm64")
    assert said == ["aarch64", "10001", "False"]
    size_mb, base_mb = podman.size_mb(device), podman.size_mb(PYTHON_ARM64)
    lab.entry.rows = [
        *(("MB", round(size_mb)), ("of which Python's image", round(base_mb))),
        ("faces", summary["faces_recognised"]),
    ]
    lab.entry.figures = {"payload bytes a face": summary["payload_bytes_per_face"]}
    assert size_mb - base_mb <= OWN_MB
