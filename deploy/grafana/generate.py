"""Write deploy/grafana/dashboards out of deploy/grafana/panels.

    make dashboards

panels/NAME.yml says, for each panel, title, unit, kind of visualisation (timeseries without one),
width (of 24; 8 without one), and queries: legend → PromQL. The JSON is checked in, for Grafana
reads files; tests see that it is what the YAML says, and that every query gives data under load.
"""

import json
from pathlib import Path
from typing import Any, Final

import yaml

_HERE: Final = Path(__file__).parent
FOLDER: Final = _HERE / "dashboards"
PANELS: Final = _HERE / "panels"

_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
_WIDTH: Final = 24
_HEIGHT: Final = 8
# How Grafana calls units, by our word for them.
_UNITS: Final = {
    "count": "short",
    "per second": "cps",
    "share": "percentunit",
    "seconds": "s",
    "bytes": "bytes",
    "bytes per second": "Bps",
    "bits a face": "bits",
    "frames per second": "fps",
    "yes or no": "bool_yes_no",
    "index": "none",
}


def names() -> list[str]:
    """The dashboards there are."""
    return sorted(path.stem for path in PANELS.glob("*.yml"))


def dashboard(name: str) -> dict[str, Any]:
    """One dashboard as Grafana reads it. Raises KeyError for a unit that has no name here."""
    described = yaml.safe_load((PANELS / f"{name}.yml").read_text(encoding="utf-8"))
    variables = [_variable(**variable) for variable in described.get("variables", [])]
    return {
        "uid": f"mien-{name}",
        "title": described["title"],
        "tags": ["mien"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": [_datasource(), *variables]},
        "panels": _placed(described["panels"]),
    }


def _datasource() -> dict[str, Any]:
    return {
        "name": "datasource",
        "label": "Prometheus",
        "type": "datasource",
        "query": "prometheus",
    }


def _variable(name: str, label: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,  # when the time range changes: devices come and go
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _placed(panels: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """In rows, from left to right."""
    x, y, placed = 0, 0, []
    for number, panel in enumerate(panels, start=1):
        width = panel.get("width", _WIDTH // 3)
        height = _HEIGHT // 2 if panel.get("kind") == "stat" else _HEIGHT
        if x + width > _WIDTH:
            x, y = 0, y + max(one["gridPos"]["h"] for one in placed if one["gridPos"]["y"] == y)
        placed.append(_panel(number, panel, {"x": x, "y": y, "w": width, "h": height}))
        x += width
    return placed


def _panel(number: int, panel: dict[str, Any], position: dict[str, int]) -> dict[str, Any]:
    kind = panel.get("kind", "timeseries")
    # A point for each series, at this moment, and not a line through time.
    how = {"instant": True, "range": False, "format": "table"} if kind == "xychart" else {}
    targets = [
        {"refId": chr(ord("A") + i), "datasource": _SOURCE, "expr": expr, "legendFormat": legend}
        | how
        for i, (legend, expr) in enumerate(panel["queries"].items())
    ]
    return {
        "id": number,
        "type": kind,
        "title": panel["title"],
        "datasource": _SOURCE,
        "gridPos": position,
        "fieldConfig": {"defaults": {"unit": _UNITS[panel["unit"]]}, "overrides": []},
        "targets": targets,
        **panel.get("extra", {}),
    }


def rendered(name: str) -> str:
    """The content of a dashboard's file."""
    return json.dumps(dashboard(name), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for one in names():
        (FOLDER / f"{one}.json").write_text(rendered(one), encoding="utf-8")
