"""The images, the compose file and the manifests as they are, in Podman."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from mien.tls import TlsFiles
from tests.support.consumer import Consumer, Face
from tests.support.containers import (
    CLIP_FACES,
    MARKS,
    OWN_MB,
    START_S,
    consumer,
    metric_of,
    said_of_itself,
    until_ended,
    until_healthy,
    until_seen,
)
from tests.support.kubernetes import rendered
from tests.support.kubernetes import why_not as why_no_kubectl
from tests.support.lab import Lab
from tests.support.metric_catalogue import ROOT
from tests.support.podman import Podman
from tests.support.stand_ins import ENVOY, NATS, PYTHON, provide
from tests.support.waiting import until

pytestmark = MARKS
RECOGNIZERS = 3
CUT_S = 30.0


@pytest.mark.parametrize("image", ["mien-cloud", "mien-edge-demo"])
def test_an_image_is_small_unprivileged_and_without_torch(
    podman: Podman, lab: Lab, image: str
) -> None:
    size_mb, base_mb = podman.size_mb(image), podman.size_mb(PYTHON)
    lab.entry.rows = [("MB", round(size_mb)), ("of which Python's image", round(base_mb))]
    assert size_mb - base_mb <= OWN_MB
    assert said_of_itself(podman, image)[1:] == ["10001", "False"]


def test_a_clip_goes_in_and_recognitions_come_out_of_the_small_set(
    podman: Podman, lab: Lab
) -> None:
    podman.compose("up", "--detach", "cloud")
    (cloud,) = podman.containers("cloud")
    until_healthy(podman, cloud)
    watching = consumer(podman, lab, "127.0.0.1:50051", cloud)
    podman.compose("up", "--detach", "edge")
    (edge,) = podman.containers("edge")
    until_seen(podman, watching, CLIP_FACES, edge)
    # The clip's end is the container's, and no failure starts it again.
    until_ended(podman, edge)
    assert (watching.seen.total(), len(watching.seen)) == (CLIP_FACES, CLIP_FACES)
    lab.entry.rows = [("faces", CLIP_FACES)]
    # As `docker compose stop` does: it drains, and ends well.
    podman.compose("stop", "cloud")
    assert podman.inspected(cloud)["State"]["ExitCode"] == 0


def test_three_recognizers_survive_kill_9_and_a_partition(podman: Podman, lab: Lab) -> None:
    for image in (NATS, ENVOY):
        provide(podman, image)
    fleet = ("--profile", "fleet", "up", "--detach", "--scale", f"recognizer={RECOGNIZERS}")
    podman.compose(*fleet, "nats", "recognizer", "envoy")
    recognizers = podman.containers("recognizer")
    assert len(recognizers) == RECOGNIZERS
    until_healthy(podman, *recognizers, *podman.containers("envoy"))
    watching = consumer(podman, lab, "127.0.0.1:50050", *recognizers)
    podman.compose("--profile", "fleet", "up", "--detach", "--no-deps", "camera")
    (camera,) = podman.containers("camera")
    until_more(podman, watching, camera)

    killed = max(recognizers, key=lambda one: metric_of(podman, "streams", one))
    before = podman.pid(killed)
    os.kill(before, signal.SIGKILL)
    until_more(podman, watching, camera)
    until(
        lambda: podman.pid(killed) not in (0, before),
        lambda: podman.logs(killed),
        patience_s=START_S,
    )
    until_healthy(podman, killed)

    assert linked(podman, camera, "down")
    cut_off = watching.seen.total()
    # Longer than the device waits for an answer, shorter than --give_up_s: then nothing is lost.
    time.sleep(CUT_S)
    until(lambda: linked(podman, camera, "up"), lambda: podman.logs(camera), patience_s=START_S)
    until_more(podman, watching, camera, than=cut_off)

    podman.compose("--profile", "fleet", "stop", "camera")
    check_clips(lab, watching.seen)


def test_a_camera_is_known_by_its_certificate_through_envoy(
    podman: Podman, lab: Lab, tmp_path: Path
) -> None:
    for image in (NATS, ENVOY):
        provide(podman, image)
    files, secrets = secured(tmp_path)
    fleet = (*files, "--profile", "fleet", "up", "--detach")
    podman.compose(*fleet, "nats", "recognizer", "envoy")
    (recognizer,) = podman.containers("recognizer")
    until_healthy(podman, recognizer, *podman.containers("envoy"))
    paths = (secrets / "watcher" / name for name in ("ca.crt", "tls.crt", "tls.key"))
    watching = consumer(podman, lab, "127.0.0.1:50050", recognizer, files=TlsFiles(*paths))
    podman.compose(*fleet, "--no-deps", "camera")
    (camera,) = podman.containers("camera")
    until_more(podman, watching, camera)
    assert {device for device, *_ in watching.seen} == {"camera"}
    podman.compose(*files, "--profile", "fleet", "stop", "camera")
    lab.entry.rows = [("faces", watching.seen.total())]


def secured(folder: Path) -> tuple[tuple[str, ...], Path]:
    """The flags of compose for TLS, and the folder of what deploy/certificates.sh made for it.

    It is not that of the checkout, where somebody may have theirs.
    """
    secrets = folder / "certificates"
    scripts = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    script = [str(ROOT / "deploy" / "certificates.sh"), str(secrets)]
    subprocess.run(script, env={**os.environ, "PATH": scripts}, check=True)
    for part in (folder, *folder.parents):  # the containers' users must get there
        if part.stat().st_uid == os.getuid() and not part.stat().st_mode & 0o001:
            part.chmod(part.stat().st_mode | 0o011)
    text = (ROOT / "deploy" / "compose.tls.yml").read_text(encoding="utf-8")
    over = folder / "compose.tls.yml"
    over.write_text(text.replace("./certificates/", f"{secrets}/"))
    return ("-f", str(ROOT / "docker-compose.yml"), "-f", str(over)), secrets


def linked(podman: Podman, container: str, state: str) -> bool:
    """Set a container's link up or down; False while it is between two processes.

    By the name of its network, which is the same for every process that it is restarted with.
    """
    network = podman.inspected(container)["NetworkSettings"]["SandboxKey"]
    command = ("nsenter", f"--net={network}", "ip", "link", "set", "eth0", state)
    return bool(network) and subprocess.run(command, check=False).returncode == 0


def until_more(podman: Podman, watching: Consumer, camera: str, than: int | None = None) -> None:
    """Wait for more than a clip's faces."""
    before = watching.seen.total() if than is None else than
    until_seen(podman, watching, before + CLIP_FACES + 1, camera)


def check_clips(lab: Lab, seen: Counter[Face]) -> None:
    """Nothing came twice, and each clip but the last came whole: a clip is one epoch."""
    doubled = sum(times - 1 for times in seen.values())
    clips = Counter(epoch for _, epoch, _, _ in seen)
    lab.entry.rows = [("faces", seen.total()), ("doubled", doubled), ("clips", len(clips))]
    assert doubled == 0
    whole = [faces for epoch, faces in clips.items() if epoch != max(clips)]
    assert whole
    assert set(whole) == {CLIP_FACES}


@pytest.mark.skipif(why_no_kubectl() is not None, reason=str(why_no_kubectl()))
def test_the_recognizers_of_kubernetes_serve_as_their_manifest_has_them(
    podman: Podman, lab: Lab, tmp_path: Path
) -> None:
    for image in (NATS, ENVOY):
        provide(podman, image)
    # Podman plays Deployments and ConfigMaps, no StatefulSet: NATS is run beside.
    podman.run("network", "create", "pods")
    podman.run("run", "--detach", "--name", "nats", "--network", "pods", NATS, "nats-server", "-js")
    manifests = tmp_path / "single.yaml"
    manifests.write_text(rendered("single"))
    podman.run("kube", "play", "--network", "pods", str(manifests))
    (recognizer,) = running(podman, "recognizer")
    (envoy,) = running(podman, "envoy-pod")
    until(
        lambda: metric_of(podman, "hub_connected", recognizer) == 1,
        lambda: podman.logs(recognizer),
        patience_s=START_S,
    )
    ready = "http://127.0.0.1:9464/readyz"
    check = ("exec", recognizer, "python", "/opt/mien/check_health.py", ready)
    podman.run(*check)
    assert podman.pid(envoy) != 0, podman.logs(envoy)
    lab.entry.rows = [("pods", 2)]


def running(podman: Podman, name: str) -> list[str]:
    """Names of the containers, without those that only hold a pod's network."""
    found = podman.run("ps", "--filter", f"name={name}", "--format", "{{.Names}}").split()
    return [one for one in found if not one.endswith("-infra")]
