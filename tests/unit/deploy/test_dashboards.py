"""The dashboards as files: what the generator makes, complete, and naming only what is there."""

import itertools
import re
from typing import Any

import pytest
import yaml

from tests.support.dashboards import CHOSEN, FILES, FOLDER, Query, dashboards, generator, queries
from tests.support.metric_catalogue import ROOT
from tests.unit.deploy.test_rules import KNOWN

DASHBOARDS = dashboards()
# Beside ours: those of the Prometheus client.
CLIENT = {"process_resident_memory_bytes", "process_cpu_seconds_total"}


def panels() -> list[tuple[str, dict[str, Any]]]:
    return [(name, panel) for name, document in DASHBOARDS.items() for panel in document["panels"]]


def test_there_are_four_of_them() -> None:
    assert set(DASHBOARDS) == {"fleet", "device", "model", "service"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_is_what_the_generator_makes_of_its_panels(path: Any) -> None:
    assert path.read_text(encoding="utf-8") == generator().rendered(path.stem), "make dashboards"


@pytest.mark.parametrize(("name", "panel"), panels(), ids=lambda value: str(value)[:20])
def test_a_panel_has_a_title_a_unit_queries_and_the_chosen_source(
    name: str, panel: dict[str, Any]
) -> None:
    assert panel["title"]
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["targets"]
    for target in panel["targets"]:
        assert target["datasource"]["uid"] == panel["datasource"]["uid"] == "${datasource}"
        variables = set(re.findall(r"\$\w+", target["expr"]))
        listed = {f"${one['name']}" for one in DASHBOARDS[name]["templating"]["list"]}
        assert variables <= listed | {"$__rate_interval"}
        assert variables <= set(CHOSEN)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_no_two_panels_of_a_dashboard_share_an_id_a_title_or_a_place(name: str) -> None:
    found = DASHBOARDS[name]["panels"]
    for one, other in itertools.combinations(found, 2):
        assert one["id"] != other["id"]
        assert one["title"] != other["title"]
        a, b = one["gridPos"], other["gridPos"]
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        below = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or below
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in found)


@pytest.mark.parametrize("query", queries(), ids=str)
def test_a_query_names_metrics_that_the_services_have(query: Query) -> None:
    named = set(re.findall(r"(?:instance\w*:)?(?:mien|process)_\w+(?::\w+)?", query.expr))
    assert named or "up{" in query.expr
    assert named <= set(KNOWN) | CLIENT


def test_grafana_reads_them_where_compose_puts_them() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    mounts = [volume.split(":")[:2] for volume in compose["services"]["grafana"]["volumes"]]
    here = {target: ROOT / source for source, target in mounts if source.startswith(".")}
    assert all(source.is_dir() for source in here.values())
    providers = FOLDER / "provisioning" / "dashboards" / "mien.yml"
    (provider,) = yaml.safe_load(providers.read_text(encoding="utf-8"))["providers"]
    assert here[provider["options"]["path"]] == FOLDER / "dashboards"
    sources = FOLDER / "provisioning" / "datasources" / "prometheus.yml"
    (source,) = yaml.safe_load(sources.read_text(encoding="utf-8"))["datasources"]
    assert source["url"] == "http://prometheus:9090"
