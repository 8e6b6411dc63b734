"""What the images and the compose file promise, as far as it can be checked without a container."""

import importlib.util
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509

from cloud_recognizer.config import parse_config as parse_cloud
from cloud_recognizer.policy import Policy
from edge_encoder.config import EdgeConfig
from edge_encoder.config import parse_config as parse_edge
from mien.bundle import Bundle
from mien.cli.main import main
from mien.declaration import ContextOfUse
from mien.errors import ConfigError, PolicyError
from mien.identity import Identity, Role
from mien.messages.upward import Hello
from mien.tls import TlsFiles
from tests.support.services import serving
from tests.support.tiny_bundle import make_tiny_bundle

ROOT = Path(__file__).parents[3]
COMPOSE = ROOT / "docker-compose.yml"
COMPOSE_TLS = ROOT / "deploy" / "compose.tls.yml"
DOCKERFILES = tuple(
    ROOT / "deploy" / f"{name}.Dockerfile" for name in ("edge", "cloud", "cloud-gpu")
)


@pytest.fixture
def services() -> dict[str, Any]:
    """Those of the compose file, where nothing that it asks of the environment is set."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", COMPOSE.read_text(encoding="utf-8"))
    document = yaml.safe_load(text)
    found = document["services"]
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_tiny_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.mark.parametrize("compose", [COMPOSE, COMPOSE_TLS], ids=lambda path: path.name)
def test_a_compose_file_follows_its_schema(compose: Path) -> None:
    checker = [sys.executable, "-m", "check_jsonschema"]
    options = ["--builtin-schema", "vendor.compose-spec", str(compose)]
    ran = subprocess.run([*checker, *options], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_every_service_has_a_health_check(services: dict[str, Any]) -> None:
    small = {name for name, service in services.items() if "profiles" not in service}
    assert small == {"cloud", "edge"}
    fleet = {"recognizer", "camera", "nats", "envoy"}
    assert set(services) - small == fleet | {"prometheus", "alertmanager", "grafana"}
    for service in services.values():
        assert service["healthcheck"]["test"][0] == "CMD"


def test_no_service_writes_beside_its_volumes_or_has_a_privilege(services: dict[str, Any]) -> None:
    volumes = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["volumes"]
    writes = {}
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not {"privileged", "cap_add", "network_mode", "pid"} & set(service), name
        mounts = [mount.split(":") for mount in service.get("volumes", [])]
        own = [mount for mount in mounts if mount[0] in volumes]
        assert all(mount[2:] == ["ro"] for mount in mounts if mount not in own), name
        writes[name] = tuple(mount[1] for mount in own)
    # What each has to keep; the programs' own defaults.
    assert writes == {
        **dict.fromkeys(("cloud", "recognizer", "envoy"), ()),
        **dict.fromkeys(("edge", "camera"), ("/var/lib/mien",)),
        "nats": ("/data",),
        "prometheus": ("/prometheus",),
        "alertmanager": ("/alertmanager",),
        "grafana": ("/var/lib/grafana",),
    }


def edge_config(services: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> EdgeConfig:
    for name, value in services["edge"]["environment"].items():
        monkeypatch.setenv(name, value)
    return parse_edge(services["edge"]["command"][1:])


def test_the_edges_command_is_one_that_the_edge_takes(
    services: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = services["edge"]["command"][0]
    config = edge_config(services, monkeypatch)
    assert command == "run"
    assert config.server == "cloud:50051"
    assert config.rounds == 1, "its container ends with the clip"
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
    assert config.metrics_host == "0.0.0.0"  # noqa: S104


def test_with_tls_each_container_has_files_that_the_commands_of_the_page_make(
    services: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = COMPOSE_TLS.read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for arguments in re.findall(r"^#   mien (.*)$", text, re.MULTILINE):
        assert main(arguments.split()) == 0
    secured = yaml.safe_load(text)["services"]
    for name, service in secured.items():
        # The first file's folder is what paths of both begin at.
        assert service["volumes"] == ["./certificates:/certificates:ro"]
        services[name]["environment"] |= {
            variable: value.replace("/certificates", "certificates")
            for variable, value in service["environment"].items()
        }
    for name, value in services["cloud"]["environment"].items():
        monkeypatch.setenv(name, value)
    cloud = parse_cloud(services["cloud"]["command"][1:])
    edge = edge_config(services, monkeypatch)
    assert cloud.tls is not None
    assert edge.tls is not None
    cloud.tls.read()
    edge.tls.read()
    assert uris(edge.tls) == [Identity(Role.DEVICE, edge.device).uri]
    host = edge.servers[0].rpartition(":")[0]
    *_, address, ca, certificate, key = secured["cloud"]["healthcheck"]["test"]
    assert {host, address.rpartition(":")[0]} <= set(hosts(cloud.tls))
    TlsFiles(*(Path(path.lstrip("/")) for path in (ca, certificate, key))).read()


def sans(files: TlsFiles) -> x509.SubjectAlternativeName:
    assert files.certificate is not None
    own = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    return own.extensions.get_extension_for_class(x509.SubjectAlternativeName).value


def uris(files: TlsFiles) -> list[str]:
    return sans(files).get_values_for_type(x509.UniformResourceIdentifier)


def hosts(files: TlsFiles) -> list[str]:
    return sans(files).get_values_for_type(x509.DNSName)


def test_the_compose_files_device_is_one_that_its_policy_lets_in(
    services: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in services["cloud"]["environment"].items():
        monkeypatch.setenv(name, value)
    cloud = parse_cloud(services["cloud"]["command"][1:])
    source, target, _ = services["cloud"]["volumes"][0].split(":")
    assert str(cloud.policy) == target
    edge = edge_config(services, monkeypatch)
    declared = Hello(
        *(edge.device, 1, 0, (), edge.purpose, edge.notice),
        context=ContextOfUse.of("context", edge.context),
    )
    policy = Policy.load(ROOT / source)
    policy.check(cloud)
    assert policy.admit(declared) == ""
    with pytest.raises(PolicyError):
        policy.admit(replace(declared, notice=""))


def test_the_fleets_recognizers_are_ones_that_their_policy_lets_start(
    services: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for service in ("recognizer", "camera"):
        for name, value in services[service]["environment"].items():
            monkeypatch.setenv(name, value)
    config = parse_cloud(services["recognizer"]["command"][1:])
    source, target, _ = services["recognizer"]["volumes"][0].split(":")
    assert str(config.policy) == target
    Policy.load(ROOT / source).check(config)
    assert config.nats == "nats://nats:4222"
    assert parse_edge(services["camera"]["command"][1:]).server == "envoy:50050"
    assert services["recognizer"]["ports"] == [], "one port of the host cannot be three's"


def test_prometheus_scrapes_the_services_where_they_listen(
    services: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIEN_EDGE_INSECURE", "true")
    text = (ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text(encoding="utf-8")
    jobs = yaml.safe_load(text)["scrape_configs"]
    found = [look for job in jobs for look in job["dns_sd_configs"]]
    targets = {(name, look["port"]) for look in found for name in look["names"]}
    edge = parse_edge(services["edge"]["command"][1:])
    camera = parse_edge(services["camera"]["command"][1:])
    assert "./deploy/prometheus:/etc/prometheus:ro" in services["prometheus"]["volumes"]
    ports = {"edge": edge.metrics_port, "camera": camera.metrics_port}
    assert targets == {("cloud", 9464), ("recognizer", 9464), *ports.items()}
    assert edge.metrics_host == "0.0.0.0"  # noqa: S104 -- inside its container
    for name in ("cloud", "recognizer"):
        with monkeypatch.context() as environment:
            for variable, value in services[name]["environment"].items():
                environment.setenv(variable, value)
            cloud = parse_cloud(services[name]["command"][1:])
        assert (cloud.metrics_host, cloud.metrics_port) == ("0.0.0.0", 9464)  # noqa: S104
        assert not any("9464" in port for port in services[name]["ports"]), "it has no login"


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
