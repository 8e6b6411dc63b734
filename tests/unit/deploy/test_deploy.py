"""What the images and the compose file promise, as far as it can be checked without a container."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from cloud_recognizer.config import parse_config as parse_cloud
from edge_encoder.config import parse_config as parse_edge
from mien.bundle import Bundle
from mien.errors import ConfigError
from tests.support.services import serving
from tests.support.tiny_bundle import make_tiny_bundle

ROOT = Path(__file__).parents[3]
COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILES = (ROOT / "deploy" / "edge.Dockerfile", ROOT / "deploy" / "cloud.Dockerfile")


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    document = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    found = document["services"]
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_tiny_bundle(tmp_path_factory.mktemp("bundle"))


def test_the_compose_file_follows_its_schema() -> None:
    checker = [sys.executable, "-m", "check_jsonschema"]
    options = ["--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    ran = subprocess.run([*checker, *options], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_every_service_has_a_health_check(services: dict[str, Any]) -> None:
    assert set(services) == {"cloud", "edge", "prometheus"}
    for service in services.values():
        assert service["healthcheck"]["test"][0] == "CMD"


def test_the_edges_command_is_one_that_the_edge_takes(services: dict[str, Any]) -> None:
    command, *arguments = services["edge"]["command"]
    config = parse_edge(arguments)
    assert command == "run"
    assert config.server == "cloud:50051"
    assert config.give_up_s >= 30, "not every compose waits for a healthy cloud"


def test_the_clouds_command_is_one_that_the_cloud_takes(
    services: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = DOCKERFILES[1].read_text(encoding="utf-8")
    command, *arguments = re.findall(r'"([^"]+)"', text.rpartition("\nCMD")[2])
    with pytest.raises(ConfigError, match="insecure"):  # an image alone is no trusted network
        parse_cloud(arguments)
    for name, value in services["cloud"]["environment"].items():
        monkeypatch.setenv(name, value)
    config = parse_cloud(arguments)
    assert command == "serve"
    assert (config.host, config.port, config.metrics_port) == ("0.0.0.0", 50051, 9464)  # noqa: S104


def test_prometheus_scrapes_the_services_where_they_listen(services: dict[str, Any]) -> None:
    text = (ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text(encoding="utf-8")
    jobs = yaml.safe_load(text)["scrape_configs"]
    targets = {target for job in jobs for one in job["static_configs"] for target in one["targets"]}
    edge = parse_edge(services["edge"]["command"][1:])
    assert "./deploy/prometheus:/etc/prometheus:ro" in services["prometheus"]["volumes"]
    assert targets == {"cloud:9464", f"edge:{edge.metrics_port}"}
    assert edge.metrics_host == "0.0.0.0"  # noqa: S104 -- inside its container


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.stem)
def test_an_image_is_built_in_stages_runs_unprivileged_and_has_no_torch(dockerfile: Path) -> None:
    text = dockerfile.read_text(encoding="utf-8")
    assert len(re.findall(r"^FROM ", text, re.MULTILINE)) >= 2
    assert re.findall(r"^USER (\w+)$", text, re.MULTILINE)[-1] not in ("root", "0")
    guard = re.search(r'"-c", \\\n\s+"(.*torch.*)"\]', text)
    assert guard is not None
    # The guard itself: it ends with 1 exactly where torch is there.
    ran = subprocess.run([sys.executable, "-c", guard[1]], check=False)
    assert ran.returncode == (importlib.util.find_spec("torch") is not None)


def test_the_health_check_tells_a_serving_recognizer_from_none(
    bundle: Bundle, tmp_path: Path
) -> None:
    check = [sys.executable, str(ROOT / "deploy" / "check_health.py")]
    with serving(bundle.folder, tmp_path / "log") as cloud:
        assert subprocess.run([*check, cloud.address], check=False).returncode == 0
    ran = subprocess.run([*check, cloud.address], capture_output=True, check=False)
    assert ran.returncode == 1
