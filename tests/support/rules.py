"""The Prometheus rules of deploy/, as they stand in their files."""

from dataclasses import dataclass
from typing import Any

import yaml

from tests.support.metric_catalogue import ROOT

FOLDER = ROOT / "deploy" / "prometheus"
CONFIG = FOLDER / "prometheus.yml"
FILES = tuple(sorted((FOLDER / "rules").glob("*.yml")))


@dataclass(frozen=True)
class Rule:
    """One rule. name: what it records, or the alert's name."""

    name: str
    expr: str
    alert: bool
    body: dict[str, Any]


def all_rules() -> list[Rule]:
    """Those of every file, in order."""
    groups = [
        group
        for path in FILES
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
    ]
    return [
        Rule(rule.get("alert") or rule["record"], rule["expr"], "alert" in rule, rule)
        for group in groups
        for rule in group["rules"]
    ]


RULES = all_rules()
ALERTS = [rule for rule in RULES if rule.alert]
RECORDINGS = [rule for rule in RULES if not rule.alert]
