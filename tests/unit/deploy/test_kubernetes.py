"""What the manifests promise, as far as it can be checked without a cluster."""

import os
import re
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import yaml

from cloud_recognizer.config import CloudConfig, parse_config
from cloud_recognizer.grpc_server import CLOSE_GRACE_S
from cloud_recognizer.health import LIVENESS
from cloud_recognizer.health_pages import SERVICES
from cloud_recognizer.policy import Policy
from mien.errors import ConfigError
from mien.identity import Identity, Role
from tests.support.kubernetes import FOLDER, OVERLAYS, Manifests, rendered, validated, why_not
from tests.support.metric_catalogue import ROOT, scraped_samples

OUTSIDE = {"LoadBalancer", "NodePort", "ExternalName"}
pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


@pytest.fixture(params=OVERLAYS)
def manifests(request: pytest.FixtureRequest) -> Manifests:
    return Manifests(request.param)


def recognizer(manifests: Manifests) -> CloudConfig:
    container = manifests.container("recognizer")
    with pytest.MonkeyPatch.context() as patch:
        for variable in container["env"]:
            patch.setenv(variable["name"], variable["value"])
        return parse_config(container["args"][1:])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_of_an_overlay_follows_its_schema_to_the_field(
    overlay: str, tmp_path: Path
) -> None:
    file = tmp_path / "rendered.yaml"
    file.write_text(rendered(overlay))
    ran = validated(file)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_a_field_that_the_schema_does_not_have_is_found(tmp_path: Path) -> None:
    file = tmp_path / "rendered.yaml"
    file.write_text(rendered("cpu").replace("readinessProbe:", "readynessProbe:"))
    assert validated(file).returncode != 0


def test_the_recognizer_takes_its_arguments_and_listens_where_it_is_asked(
    manifests: Manifests,
) -> None:
    config, container = recognizer(manifests), manifests.container("recognizer")
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert container["args"][0] == "serve"
    assert ports == {"grpc": config.port, "metrics": config.metrics_port}
    assert config.host == config.metrics_host == "0.0.0.0"  # noqa: S104 -- inside its pod
    assert config.nats == "nats://nats:4222"
    nats = manifests.one("StatefulSet", "nats")
    assert config.nats_replicas <= nats["spec"]["replicas"]
    asked = {
        probe: container[probe]["httpGet"]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe")
    }
    assert {get["port"] for get in asked.values()} == {"metrics"}
    assert SERVICES[asked["livenessProbe"]["path"]] == LIVENESS
    assert SERVICES[asked["readinessProbe"]["path"]] == ""
    assert SERVICES[asked["startupProbe"]["path"]] == ""


def test_only_the_gpu_overlay_insists_on_cuda_and_it_gets_one() -> None:
    cpu, gpu = Manifests("cpu"), Manifests("gpu")
    assert (recognizer(cpu).provider, recognizer(gpu).provider) == ("auto", "cuda")
    assert gpu.container("recognizer")["resources"]["limits"]["nvidia.com/gpu"] == "1"
    images = [one.container("recognizer")["image"] for one in (cpu, gpu)]
    assert images == ["mien-cloud:latest", "mien-cloud-gpu:latest"]


def test_a_pod_has_time_to_drain(manifests: Manifests) -> None:
    config, pods = recognizer(manifests), manifests.pods()
    grace_s = pods["recognizer"]["terminationGracePeriodSeconds"]
    assert grace_s > config.drain_grace_s + CLOSE_GRACE_S
    waits_s = manifests.container("envoy")["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pods["envoy"]["terminationGracePeriodSeconds"] > waits_s


def test_every_pod_is_unprivileged_with_a_root_that_is_read_only(manifests: Manifests) -> None:
    assert set(manifests.pods()) == {"recognizer", "envoy", "nats"}
    for name, pod in manifests.pods().items():
        own = manifests.container(name)["securityContext"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert own["readOnlyRootFilesystem"]
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert not own["allowPrivilegeEscalation"]
        assert pod["automountServiceAccountToken"] is False


def test_envoys_configuration_is_the_one_of_deploy(manifests: Manifests) -> None:
    envoy = manifests.mounted("envoy", "config")["envoy.yaml"]
    assert envoy == (ROOT / "deploy" / "envoy" / "envoy.yaml").read_text(encoding="utf-8")


def test_the_policy_is_deploys_but_for_what_several_recognizers_must_hold(
    manifests: Manifests, tmp_path: Path
) -> None:
    policy = manifests.mounted("recognizer", "policy")["policy.yaml"]
    single = (ROOT / "deploy" / "policy.yaml").read_text(encoding="utf-8")
    expected = yaml.safe_load(single) | {"longest_retention_s": 60}
    assert yaml.safe_load(policy) == expected
    file = tmp_path / "policy.yaml"
    file.write_text(policy)
    Policy.load(file).check(recognizer(manifests))


def test_envoy_and_recognizers_meet_by_the_headless_services_name(manifests: Manifests) -> None:
    config = yaml.safe_load(manifests.mounted("envoy", "config")["envoy.yaml"])
    (cluster,) = config["static_resources"]["clusters"]
    (group,) = cluster["load_assignment"]["endpoints"]
    (endpoint,) = group["lb_endpoints"]
    address = endpoint["endpoint"]["address"]["socket_address"]
    service = manifests.one("Service", address["address"])
    assert service["spec"]["clusterIP"] == "None", "one address would be one recognizer to Envoy"
    assert service["spec"]["ports"][0]["port"] == address["port_value"]
    health = endpoint["endpoint"]["health_check_config"]["port_value"]
    assert health == recognizer(manifests).metrics_port
    (check,) = cluster["health_checks"]
    assert SERVICES[check["http_health_check"]["path"]] == ""
    (rule,) = manifests.one("NetworkPolicy", "envoy")["spec"]["egress"]
    assert {port["port"] for port in rule["ports"]} == {address["port_value"], health}
    (listener,) = config["static_resources"]["listeners"]
    ports = [port["containerPort"] for port in manifests.container("envoy")["ports"]]
    assert ports == [listener["address"]["socket_address"]["port_value"]]


def test_nats_takes_its_configuration(
    manifests: Manifests, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = manifests.mounted("nats", "config")["nats.conf"]
    (tmp_path / "nats.conf").write_text(config.replace("/data", str(tmp_path / "data")))
    monkeypatch.setenv("POD_NAME", "nats-0")
    server = Path(sysconfig.get_path("scripts")) / "nats-server"
    command = [str(server), "-t", "-c", str(tmp_path / "nats.conf")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    routes = re.findall(r"nats://(nats-\d)\.nats:6222", config)
    replicas = manifests.one("StatefulSet", "nats")["spec"]["replicas"]
    assert routes == ([f"nats-{number}" for number in range(replicas)] if replicas > 1 else [])


def test_a_server_of_nats_is_stopped_by_sigterm_alone(manifests: Manifests) -> None:
    """Lame duck mode keeps silent to who reads: decision 14. Its settings would do nothing else."""
    assert "lame_duck" not in manifests.mounted("nats", "config")["nats.conf"]
    assert "lifecycle" not in manifests.container("nats")


def test_each_workload_may_be_reached_where_it_listens_and_nowhere_else(
    manifests: Manifests,
) -> None:
    everybody = manifests.one("NetworkPolicy", "nothing-but-names")["spec"]
    assert everybody["podSelector"] == {}
    assert "ingress" not in everybody
    for name in manifests.pods():
        rules = manifests.one("NetworkPolicy", name)["spec"]["ingress"]
        opened = {port["port"] for rule in rules for port in rule["ports"]}
        listens = {port["containerPort"] for port in manifests.container(name)["ports"]}
        assert opened == listens - {8222}, "NATS's monitor is for the kubelet alone"


def test_the_autoscaler_asks_for_what_the_adapter_makes_of_our_metrics(
    manifests: Manifests,
) -> None:
    spec = manifests.one("HorizontalPodAutoscaler", "recognizer")["spec"]
    (asked,) = [one["pods"]["metric"]["name"] for one in spec["metrics"]]
    (rule,) = yaml.safe_load((FOLDER / "prometheus-adapter.yaml").read_text())["rules"]["custom"]
    series = rule["seriesQuery"].partition("{")[0]
    assert series in scraped_samples()
    made = re.sub(rule["name"]["matches"], rule["name"]["as"].replace("${1}", r"\1"), series)
    assert made == asked
    assert spec["scaleTargetRef"]["name"] in manifests.pods()
    assert "replicas" not in manifests.one("Deployment", "recognizer")["spec"], "the autoscaler's"


def published(manifests: Manifests) -> set[str]:
    """Names of Services that may be reached from outside of the cluster."""
    services = manifests.of("Service")
    return {one["metadata"]["name"] for one in services if one["spec"].get("type", "") in OUTSIDE}


@pytest.mark.parametrize("overlay", ["cpu", "gpu"])
def test_what_is_published_speaks_mutual_tls_and_starts_with_its_secret_only(
    overlay: str,
) -> None:
    manifests = Manifests(overlay)
    assert published(manifests) == {"mien"}
    config, container = recognizer(manifests), manifests.container("recognizer")
    assert not config.insecure
    assert config.tls is not None
    (mount,) = [one for one in container["volumeMounts"] if one["name"] == "certificates"]
    assert {str(path.parent) for path in config.tls.paths} == {mount["mountPath"]}
    # As cert-manager names them.
    assert [path.name for path in config.tls.paths] == ["ca.crt", "tls.crt", "tls.key"]
    volumes = {one["name"]: one for one in manifests.pods()["recognizer"]["volumes"]}
    secret = volumes["certificates"]["secret"]
    assert not secret.get("optional")
    assert secret["defaultMode"] & 0o007 == 0
    # Without these settings the very same arguments are refused, not served in plaintext.
    with pytest.raises(ConfigError, match="insecure"):
        parse_config(container["args"][1:])
    (certificate,) = [one for one in cert_manager("Certificate") if "dnsNames" in one["spec"]]
    assert certificate["spec"]["secretName"] == secret["secretName"]


def test_what_speaks_plaintext_is_reached_from_its_own_namespace_alone() -> None:
    single = Manifests("single")
    assert recognizer(single).insecure
    assert published(single) == set()
    (rule,) = single.one("NetworkPolicy", "envoy")["spec"]["ingress"]
    assert rule["from"] == [{"podSelector": {}}], "a selector of pods alone is of this namespace"


def cert_manager(kind: str) -> list[dict[str, Any]]:
    """Objects of the example for cert-manager, for which there is no schema here."""
    text = (FOLDER / "cert-manager.yaml").read_text(encoding="utf-8")
    return [one for one in yaml.safe_load_all(text) if one["kind"] == kind]


def test_cert_manager_is_asked_for_identities_that_the_recognizer_knows() -> None:
    (issuer,) = cert_manager("Issuer")
    for certificate in cert_manager("Certificate"):
        assert certificate["metadata"]["namespace"] == issuer["metadata"]["namespace"] == "mien"
        spec = certificate["spec"]
        assert spec["issuerRef"]["name"] == issuer["metadata"]["name"]
        (usage,) = {"server auth", "client auth"} & set(spec["usages"])
        if usage == "client auth":
            (uri,) = spec["uris"]  # gRPC hands on an identity that is the only one
            assert Identity.from_uri(uri).role is Role.DEVICE
            assert "dnsNames" not in spec


def test_with_the_component_recognizers_take_signed_bundles_alone(tmp_path: Path) -> None:
    overlay = {
        "resources": [os.path.relpath(FOLDER / "cpu", tmp_path)],
        "components": [os.path.relpath(FOLDER / "signed", tmp_path)],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    manifests = Manifests(os.path.relpath(tmp_path, FOLDER))
    config, container = recognizer(manifests), manifests.container("recognizer")
    (mount,) = [one for one in container["volumeMounts"] if one["name"] == "bundle-keys"]
    assert str(config.bundle_keys) == mount["mountPath"]
    volumes = {one["name"]: one for one in manifests.pods()["recognizer"]["volumes"]}
    assert not volumes["bundle-keys"]["configMap"].get("optional")
    assert config.tls is not None, "what cpu has else stays"
    file = tmp_path / "rendered.yaml"
    file.write_text(rendered(os.path.relpath(tmp_path, FOLDER)))
    ran = validated(file)
    assert ran.returncode == 0, ran.stdout + ran.stderr
