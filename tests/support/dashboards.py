"""The Grafana dashboards of deploy/, as they stand in their files."""

import importlib.util
import json
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from tests.support.metric_catalogue import ROOT

FOLDER = ROOT / "deploy" / "grafana"
FILES = tuple(sorted((FOLDER / "dashboards").glob("*.json")))
# What Grafana puts in for its variables; an interval must hold two scrapes of a test's Prometheus.
CHOSEN = {"$__rate_interval": "20s", "$instance": ".*", "$camera": ".*", "$bundle": ".*"}


@dataclass(frozen=True)
class Query:
    """One query of one panel, with its variables put in."""

    dashboard: str
    panel: str
    expr: str

    def __str__(self) -> str:
        return f"{self.dashboard} / {self.panel}: {self.expr}"


def generator() -> ModuleType:
    """deploy/grafana/generate.py, which is a script and in no package."""
    spec = importlib.util.spec_from_file_location("generate_dashboards", FOLDER / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def dashboards() -> dict[str, dict[str, Any]]:
    """Name → what Grafana reads."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in FILES}


def queries() -> list[Query]:
    """Those of every panel of every dashboard."""
    return [
        Query(name, panel["title"], chosen(target["expr"]))
        for name, document in dashboards().items()
        for panel in document["panels"]
        for target in panel["targets"]
    ]


def chosen(expr: str) -> str:
    """An expression with its variables put in."""
    for variable, value in CHOSEN.items():
        expr = expr.replace(variable, value)
    return expr
