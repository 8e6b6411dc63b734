"""A Podman with a store of its own, its containers in a network that nobody else is in.

Images are built and fetched from outside of that network; everything runs inside it. The store is
.cache/podman, or the folder that MIEN_LAB_PODMAN names, and is kept: images take minutes to build.
"""

import json
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support import namespaces
from tests.support.lab_device import inside
from tests.support.metric_catalogue import ROOT
from tests.support.namespaces import Namespace

NEEDED = ("podman", "buildah", "runc", "iptables", "nsenter")
COMPOSE = Path(sysconfig.get_path("scripts")) / "podman-compose"
BUILD_S = 3600.0
# What works for root without systemd, too.
_ENGINE = """\
[engine]
cgroup_manager="cgroupfs"
events_logger="file"
runtime="runc"
[containers]
default_ulimits=["nofile=8192:8192","nproc=8192:8192"]
"""


def why_not() -> str | None:
    """Why containers cannot be tried here; None where they can."""
    if missing := [name for name in NEEDED if shutil.which(name) is None]:
        return f"no {', '.join(missing)}: apt install podman buildah runc netavark iptables"
    if not COMPOSE.exists():
        return "no podman-compose: pip install podman-compose"
    if os.geteuid() != 0:
        return "containers get a network of their own here; run as root"
    return namespaces.why_not()


class Podman:
    """podman and podman-compose on one store. Raises CalledProcessError with what they said."""

    def __init__(self, folder: Path, network: Namespace) -> None:
        self.folder = folder
        self.network = network
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "containers.conf").write_text(_ENGINE)
        (folder / "storage.conf").write_text(
            f'[storage]\ndriver="overlay"\ngraphroot="{folder}/storage"\nrunroot="{folder}/run"\n'
        )
        # Short names are Docker's, as Docker itself has it.
        (folder / "registries.conf").write_text('unqualified-search-registries = ["docker.io"]\n')
        self._environment = os.environ | {
            "CONTAINERS_CONF": str(folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
            "CONTAINERS_REGISTRIES_CONF": str(folder / "registries.conf"),
            "BUILDAH_FORMAT": "docker",  # knows HEALTHCHECK
        }

    def outside(self, *arguments: str, stdin: str = "", patience_s: float = BUILD_S) -> str:
        """podman in the network of this machine: builds and pulls."""
        command = ["podman", *arguments]
        return self._run(command, None, stdin, patience_s)

    def run(self, *arguments: str, stdin: str = "") -> str:
        """podman in the network of the containers."""
        return self._run(["podman", *arguments], self.network, stdin, BUILD_S)

    def compose(self, *arguments: str) -> str:
        """podman-compose with docker-compose.yml as it stands."""
        return self._run([str(COMPOSE), *arguments], self.network, "", BUILD_S)

    def build(self, *services: str) -> None:
        """Build the images of these services of docker-compose.yml."""
        command = [str(COMPOSE), "--podman-build-args=--network=host", "build", *services]
        self._run(command, None, "", BUILD_S)

    def build_file(self, dockerfile: str, tag: str, *more: str) -> None:
        """Build one of deploy/*.Dockerfile, of which no service is made."""
        options = ("--network=host", f"--file={ROOT / 'deploy' / dockerfile}", f"--tag={tag}")
        self.outside("build", "--quiet", *options, *more, str(ROOT))

    def size_mb(self, image: str) -> float:
        """What an image takes, its base included, in 10⁶ bytes."""
        return int(self.outside("image", "inspect", "--format", "{{.Size}}", image)) / 1e6

    def _run(
        self,
        command: list[str],
        network: Namespace | None,
        stdin: str,
        patience_s: float,
        *,
        both: bool = False,
    ) -> str:
        """What it prints; on stderr, too, where both are asked for."""
        with inside(network):
            ran = subprocess.run(
                command,
                input=stdin,
                capture_output=True,
                text=True,
                check=False,
                cwd=ROOT,
                env=self._environment,
                timeout=patience_s,
            )
        if ran.returncode != 0:
            said = f"{' '.join(command)}:\n{ran.stdout[-2000:]}\n{ran.stderr[-4000:]}"
            raise subprocess.CalledProcessError(ran.returncode, said)
        return ran.stdout + ran.stderr if both else ran.stdout

    def has_image(self, name: str) -> bool:
        """Whether the store has it."""
        try:
            self.outside("image", "exists", name)
        except subprocess.CalledProcessError:
            return False
        return True

    def containers(self, service: str) -> list[str]:
        """Names of a service's containers, ended ones too."""
        label = f"label=com.docker.compose.service={service}"
        return self.run("ps", "--all", "--filter", label, "--format", "{{.Names}}").split()

    def inspected(self, container: str) -> dict[str, Any]:
        """What podman knows of a container."""
        (found,) = json.loads(self.run("inspect", container))
        assert isinstance(found, dict)
        return found

    def pid(self, container: str) -> int:
        """The process id, as this machine sees it, of a container's first process; 0: none."""
        pid = self.inspected(container)["State"]["Pid"]
        assert isinstance(pid, int)
        return pid

    def address(self, container: str) -> str:
        """Its IP address; an empty one where it has none at the moment."""
        networks = self.inspected(container)["NetworkSettings"]["Networks"]
        return str(next(iter(networks.values()))["IPAddress"])

    def is_healthy(self, container: str) -> bool:
        """What its image's or its service's health check says, asked now."""
        try:
            self.run("healthcheck", "run", container)
        except subprocess.CalledProcessError:
            return False
        return True

    def logs(self, container: str) -> str:
        """The last that it said, for messages of failures."""
        logs = ["podman", "logs", "--tail", "30", container]
        return self._run(logs, self.network, "", BUILD_S, both=True)

    def clear(self) -> None:
        """End and remove all containers, pods, networks and volumes of the store."""
        self.run("pod", "rm", "--all", "--force", "--time", "0")
        # One that others depend on (depends_on) goes only after them.
        while names := self.run("ps", "--all", "--quiet").split():
            self.run("rm", "--force", "--time", "0", "--volumes", "--depend", names[0])
        self.run("network", "prune", "--force")
        self.run("volume", "prune", "--force")


@contextmanager
def podman() -> Iterator[Podman]:
    """One without containers, which has none afterwards either."""
    folder = Path(os.environ.get("MIEN_LAB_PODMAN") or ROOT / ".cache" / "podman")
    network = Namespace()
    try:
        one = Podman(folder, network)
        one.clear()
        try:
            yield one
        finally:
            one.clear()
    finally:
        network.close()
