"""What images install: pinned, by hash, as pyproject.toml allows it, and in a bill of materials."""

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy.lock import BUILD, FOLDER, IMAGES, PYTHON, ROOT, build_requirements

FILES = (*IMAGES, BUILD)
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Of an image, not of the machine that runs the test.
ENVIRONMENT = {
    **{"platform_machine": "x86_64", "sys_platform": "linux", "platform_system": "Linux"},
    "extra": "",
}
STAGES = {"edge"}  # of our own
SHA256 = re.compile(r"--hash=sha256:[0-9a-f]{64}")


@cache
def locked(name: str) -> dict[str, str]:
    """Package → version. Fails for a line that is neither pinned nor hashed nor a comment."""
    text = (FOLDER / f"{name}.txt").read_text().replace("\\\n", " ")
    versions = {}
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        package, *hashes = line.split()
        found = re.fullmatch(r"([a-z0-9][a-z0-9.-]*)==([0-9][0-9a-z.+]*)", package)
        assert found, f"{name}.txt: {package} is not pinned"
        assert hashes, f"{name}.txt: {package} has no hash"
        assert all(SHA256.fullmatch(each) for each in hashes), f"{name}.txt: {package}"
        versions[found[1]] = found[2]
    return versions


def wanted(extras: Sequence[str]) -> Iterator[Requirement]:
    """What the project asks for with these extras, those that they include among it."""
    for text in PROJECT["dependencies"]:
        yield Requirement(text)
    for extra in extras:
        for text in PROJECT["optional-dependencies"][extra]:
            requirement = Requirement(text)
            if requirement.name == PROJECT["name"]:
                yield from wanted(sorted(requirement.extras))
            else:
                yield requirement


@pytest.mark.parametrize("name", FILES)
def test_every_package_is_pinned_with_hashes_and_none_comes_from_elsewhere(name: str) -> None:
    assert locked(name)
    assert "://" not in (FOLDER / f"{name}.txt").read_text()
    assert ("torch" in locked(name)) == (name == "trainer")


@pytest.mark.parametrize("name", IMAGES)
def test_the_lock_has_what_the_project_asks_for(name: str) -> None:
    its = {"python_version": PYTHON, "python_full_version": f"{PYTHON}.0"}
    for requirement in wanted(IMAGES[name]):
        if requirement.marker is None or requirement.marker.evaluate(ENVIRONMENT | its):
            version = locked(name)[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(version), f"{requirement} and {version}"


@pytest.mark.parametrize("name", ["edge", "cloud", "cloud-gpu"])
def test_a_services_image_can_be_traced_and_a_recognizers_can_archive(name: str) -> None:
    assert "opentelemetry-exporter-otlp-proto-grpc" in locked(name)
    assert ("pyarrow" in locked(name)) == (name != "edge")
    # What the build loads after slimming, so that it is there in the end, too.
    dockerfile = (ROOT / "deploy" / f"{name}.Dockerfile").read_text()
    (loaded,) = re.findall(r"--loads (.*)$", dockerfile, re.MULTILINE)
    assert "mien.spans" in loaded.split()
    assert ("cloud_recognizer.archive.files" in loaded.split()) == (name != "edge")


def test_the_gpu_image_brings_cuda_and_cudnn_and_no_other_service_does() -> None:
    """ONNX Runtime asks for them by extras, which the lock does not show beside its version."""
    for name in ("edge", "cloud", "cloud-gpu"):
        nvidia = {package for package in locked(name) if package.startswith("nvidia-")}
        assert bool(nvidia) == (name == "cloud-gpu")
        if nvidia:
            assert {"nvidia-cublas", "nvidia-cuda-runtime", "nvidia-cufft"} <= nvidia
            assert any(package.startswith("nvidia-cudnn-") for package in nvidia)


def test_the_tools_of_the_build_are_those_that_are_asked_for() -> None:
    for requirement in map(Requirement, build_requirements()):
        version = locked(BUILD)[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version)


@pytest.mark.parametrize("name", IMAGES)
def test_the_image_installs_its_lock_and_nothing_else(name: str) -> None:
    dockerfile = (ROOT / "deploy" / f"{name}.Dockerfile").read_text()
    assert f"deploy/requirements/install {name} /opt/mien" in dockerfile
    base = re.search(r"^ARG BASE=(\S+)$", dockerfile, re.MULTILINE)
    assert base is not None
    assert base[1].startswith(f"python:{PYTHON}-slim")
    # Nothing else is built on, so that one argument pins all of it.
    assert set(re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)) - STAGES == {"${BASE}"}
    assert "pip install" not in dockerfile
    installs = (FOLDER / "install").read_text().splitlines()
    for line in installs:
        if "pip install" in line or "$pip install" in line:
            assert "--require-hashes" in line or "--no-deps --no-index" in line


@pytest.mark.parametrize("name", IMAGES)
def test_the_bill_of_materials_is_valid_reproducible_and_lists_the_lock(
    name: str, tmp_path: Path
) -> None:
    bill = tmp_path / "sbom.json"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ["sh", "deploy/requirements/bill", name, str(bill)]  # it validates what it writes
    subprocess.run(command, cwd=ROOT, env={**os.environ, "PATH": path}, check=True, timeout=240)
    document = json.loads(bill.read_text())
    # Neither the time nor a number drawn is in it: the same lock makes the same bytes.
    assert "serialNumber" not in document
    assert "timestamp" not in document["metadata"]
    assert document["bomFormat"] == "CycloneDX"
    assert document["metadata"]["component"]["name"] == "mien"
    components = {each["name"]: each["version"] for each in document["components"]}
    assert components == locked(name)
    for each in document["components"]:
        algorithms = {h["alg"] for ref in each["externalReferences"] for h in ref["hashes"]}
        assert algorithms == {"SHA-256"}
