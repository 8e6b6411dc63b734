"""What the images and the compose file promise, as far as it can be checked without a container."""

import importlib.util
import ipaddress
import os
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
from mien.signing import trusted_keys
from mien.tls import TlsFiles
from tests.support.services import serving
from tests.support.tiny_bundle import make_tiny_bundle

ROOT = Path(__file__).parents[3]
COMPOSE = ROOT / "docker-compose.yml"
COMPOSE_TLS = ROOT / "deploy" / "compose.tls.yml"
COMPOSE_SIGNED = ROOT / "deploy" / "compose.signed.yml"
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


@pytest.mark.parametrize(
    "compose", [COMPOSE, COMPOSE_TLS, COMPOSE_SIGNED], ids=lambda path: path.name
)
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


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What deploy/certificates.sh makes, in a folder of that name."""
    folder = tmp_path_factory.mktemp("compose")
    # The scripts of this environment, `mien` among them.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ran = subprocess.run(
        [str(ROOT / "deploy" / "certificates.sh")],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return folder / "certificates"


def secured(services: dict[str, Any], name: str, made: Path) -> dict[str, str]:
    """The environment of a service with compose.tls.yml, its mount where the files were made."""
    service = yaml.safe_load(COMPOSE_TLS.read_text(encoding="utf-8"))["services"][name]
    ((source, target, mode),) = (volume.split(":") for volume in service["volumes"])
    assert mode == "ro"
    # The first file's folder is what paths of both begin at.
    own = made.parent / source
    assert own.parent == made, "a folder of its own, without the authority's key"
    environment = services[name]["environment"] | service["environment"]
    return {key: value.replace(target, str(own)) for key, value in environment.items()}


@pytest.mark.parametrize("name", ["cloud", "recognizer"])
@pytest.mark.parametrize("device", ["edge", "camera"])
def test_with_tls_each_recognizer_and_each_device_takes_the_files_that_were_made_for_it(
    services: dict[str, Any], made: Path, monkeypatch: pytest.MonkeyPatch, name: str, device: str
) -> None:
    for variable, value in (
        secured(services, name, made) | secured(services, device, made)
    ).items():
        monkeypatch.setenv(variable, value)
    cloud = parse_cloud(services[name]["command"][1:])
    edge = parse_edge(services[device]["command"][1:])
    assert cloud.tls is not None
    assert edge.tls is not None
    assert cloud.tls.read().ca == edge.tls.read().ca
    assert uris(cloud.tls) == []
    assert uris(edge.tls) == [Identity(Role.DEVICE, device).uri]
    assert edge.device == device
    # As the containers dial it, and people from this machine, at compose's port or at Envoy's.
    dialled = {edge.servers[0].rpartition(":")[0], "localhost"}
    assert dialled <= set(hosts(cloud.tls))
    assert ipaddress.ip_address("127.0.0.1") in sans(cloud.tls).get_values_for_type(x509.IPAddress)


def test_with_tls_nobody_is_left_in_plaintext(services: dict[str, Any]) -> None:
    over = yaml.safe_load(COMPOSE_TLS.read_text(encoding="utf-8"))["services"]
    for name, service in services.items():
        insecure = [key for key in service.get("environment", {}) if key.endswith("_INSECURE")]
        for key in insecure:
            assert over[name]["environment"][key] == "false"


def test_people_get_certificates_too_and_secrets_are_their_owners_alone(made: Path) -> None:
    for name, role in (("watcher", Role.CONSUMER), ("operator", Role.OPERATOR)):
        files = TlsFiles(*(made / name / file for file in ("ca.crt", "tls.crt", "tls.key")))
        files.read()
        assert uris(files) == [Identity(role, name).uri]
    for path in made.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, f"{path} is somebody else's, too"
    password = made / "grafana" / "admin_password"
    assert len(password.read_text()) == 32
    over = yaml.safe_load(COMPOSE_TLS.read_text(encoding="utf-8"))["services"]["grafana"]
    (mount,) = over["volumes"]
    source, target, _ = mount.split(":")
    assert made.parent / source == password.parent
    said = over["environment"]["GF_SECURITY_ADMIN_PASSWORD__FILE"]
    assert said == f"{target}/{password.name}"


def test_openssl_trusts_the_recognizers_certificate_by_the_authority(made: Path) -> None:
    own = made / "recognizer"
    command = ["openssl", "verify", "-CAfile", str(own / "ca.crt"), "-purpose", "sslserver"]
    ran = subprocess.run([*command, str(own / "tls.crt")], capture_output=True, check=False)
    assert ran.returncode == 0, ran.stderr


def test_certificates_that_are_there_are_not_replaced(made: Path) -> None:
    before = (made / "recognizer" / "tls.key").read_bytes()
    script = [str(ROOT / "deploy" / "certificates.sh")]
    ran = subprocess.run(script, cwd=made.parent, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "there already" in ran.stderr
    assert (made / "recognizer" / "tls.key").read_bytes() == before


def test_with_signed_bundles_every_recognizer_and_device_has_the_keys(
    services: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = yaml.safe_load(COMPOSE_SIGNED.read_text(encoding="utf-8"))["services"]
    assert set(over) == {"cloud", "recognizer", "edge", "camera"}
    assert main(["bundles", "new-key", str(tmp_path / "release")]) == 0
    (tmp_path / "keys").mkdir()
    (tmp_path / "release.pub").rename(tmp_path / "keys" / "release.pub")
    for name, service in over.items():
        mounts = dict(reversed(volume.split(":")[:2]) for volume in service["volumes"])
        for variable, value in (services[name]["environment"] | service["environment"]).items():
            monkeypatch.setenv(variable, value)
        parse = parse_cloud if name in ("cloud", "recognizer") else parse_edge
        keys = parse(services[name]["command"][1:]).bundle_keys
        assert keys is not None
        assert trusted_keys(tmp_path / mounts[str(keys)]) is not None
    assert "./bundles:/bundles:ro" in over["cloud"]["volumes"], "the image's own are not signed"


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
