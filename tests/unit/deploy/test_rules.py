"""The rules name only what is there; without promtool, so that a rename fails everywhere."""

import re
from dataclasses import fields

import pytest

from cloud_recognizer.config import CloudConfig
from edge_encoder.config import EdgeConfig
from edge_encoder.fleet.config import FleetConfig
from tests.support import promql
from tests.support.metric_catalogue import ROOT, TARGET_LABELS, Sample, scraped_samples
from tests.support.rules import ALERTS, CONFIG, FILES, RECORDINGS, RULES, Rule

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")


def recorded_samples(scraped: dict[str, Sample]) -> dict[str, Sample]:
    """What the recording rules make of it: their labels, with the bounds of what they came from."""
    found: dict[str, Sample] = {}
    for rule in RECORDINGS:
        known = [(scraped | found)[selector.name] for selector in promql.selectors(rule.expr)]
        labels = promql.kept_labels(rule.expr) or set(known[0].labels)
        values = {label: bound for sample in known for label, bound in sample.values.items()}
        found[rule.name] = Sample(frozenset(labels), values)
    return found


SCRAPED = scraped_samples()
KNOWN = SCRAPED | recorded_samples(SCRAPED)


def complaints(expr: str) -> list[str]:
    """What an expression names that is not there."""
    found = []
    labels: set[str] = set(TARGET_LABELS)
    for selector in promql.selectors(expr):
        sample = KNOWN.get(selector.name)
        if sample is None:
            found.append(f"no metric {selector.name}")
            continue
        labels |= sample.labels
        for label in selector.matchers:
            if label not in sample.labels:
                found.append(f"{selector.name} has no label {label}")
            elif label in sample.values:
                strange = set(selector.values(label)) - set(sample.values[label])
                found += [f"{selector.name} has no {label} {value}" for value in strange]
    strange = promql.grouping_labels(expr) - labels
    return found + [f"nothing has the label {label}" for label in sorted(strange)]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_names_metrics_labels_and_values_that_the_services_have(rule: Rule) -> None:
    assert complaints(rule.expr) == []


@pytest.mark.parametrize(
    ("expr", "complaint"),
    [
        ("rate(mien_cloud_face_total[5m])", "no metric mien_cloud_face_total"),
        ('mien_cloud_streams{camera="x"} > 0', "mien_cloud_streams has no label camera"),
        (
            'mien_cloud_dropped_total{reason=~"too_late|tired"}',
            "mien_cloud_dropped_total has no reason tired",
        ),
        ("sum by (job, code) (mien_cloud_streams)", "nothing has the label code"),
        ('up{job="mien"} == 0', "up has no job mien"),
        ("deriv(mien_cloud_streams)", "no metric deriv"),
    ],
)
def test_a_name_that_is_not_there_is_found(expr: str, complaint: str) -> None:
    assert complaint in complaints(expr)


# What a fleet's operator must hear of, with a figure that says so. A subject goes from here by a
# decision, never because its alert was deleted.
SUBJECTS = {
    "bits a face at a recognizer": "mien_cloud_payload_bytes_total",
    "bits a face of a device": "mien_edge_payload_bytes_total",
    "estimated accuracy": "mien_cloud_accuracy_estimate",
    "golden probes": "mien_cloud_probes_total",
    "drift": "mien_cloud_drift_psi",
    "lag": "mien_edge_lag_seconds",
    "latency": "mien_cloud_chunk_seconds_bucket",
    "how full a spool is": "mien_edge_spool_bytes",
    "a spool's disk": "mien_edge_spool_failing",
    "drops of a recognizer": "mien_cloud_dropped_total",
    "drops of a device": "mien_edge_dropped_total",
    "a recognizer's certificate": "mien_cloud_certificate_expiry_timestamp_seconds",
    "a device's certificate": "mien_edge_certificate_expiry_timestamp_seconds",
    "NATS": "mien_cloud_hub_connected",
    "the audit log": "mien_cloud_audit_entries_total",
    "cameras": "mien_edge_camera_delivering",
    "services that are down": "up",
}


def read_of(rule: Rule) -> set[str]:
    """The scraped metrics that a rule reads, also by way of recorded ones."""
    recorded = {recording.name: recording for recording in RECORDINGS}
    names = {selector.name for selector in promql.selectors(rule.expr)}
    through = [read_of(recorded[name]) for name in names & set(recorded)]
    return (names - set(recorded)).union(*through)


@pytest.mark.parametrize("subject", SUBJECTS)
def test_the_operator_is_alerted_on(subject: str) -> None:
    assert any(SUBJECTS[subject] in read_of(rule) for rule in ALERTS)


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule.name)
def test_an_alert_says_how_bad_what_and_where_to_read_on(rule: Rule) -> None:
    assert rule.body["labels"]["severity"] in ("critical", "warning")
    assert re.fullmatch(r"[1-9][0-9]*m", rule.body["for"])
    assert rule.body["annotations"]["summary"]
    page, _, anchor = rule.body["annotations"]["runbook"].partition("#")
    assert page == "docs/troubleshooting.md"
    assert anchor in [anchor_of(heading) for heading in re.findall(r"^## (.*)$", PAGE, re.M)]
    assert f"`{rule.name}`" in PAGE, "its section names it"


# What tells of a whole machine, also where its cameras are a fleet.
OF_A_MACHINE = {"up", "mien_edge_fleet_config_is_newest"}
OF_A_CAMERA = [
    rule
    for rule in ALERTS
    if any(name.startswith("mien_edge_") for name in read_of(rule) - OF_A_MACHINE)
]


@pytest.mark.parametrize("rule", OF_A_CAMERA, ids=lambda rule: rule.name)
def test_an_alert_on_a_camera_says_which_one(rule: Rule) -> None:
    assert "{{ $labels.instance }} {{ $labels.camera }}" in rule.body["annotations"]["summary"]


def anchor_of(heading: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")


def test_no_two_rules_have_one_name() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES)
    assert len(ALERTS) >= 20
    assert [path.name for path in FILES] == ["alerts-cloud.yml", "alerts-edge.yml", "recording.yml"]
    assert 'rule_files: ["rules/*.yml"]' in CONFIG.read_text(encoding="utf-8")


def test_the_page_names_metrics_alerts_and_settings_that_exist() -> None:
    for name in re.findall(r"\b(?:instance\w*:)?mien_\w+(?::\w+)?", PAGE):
        assert name in KNOWN, name
    alerts = {rule.name for rule in ALERTS}
    assert set(re.findall(r"`(Mien\w+)`", PAGE)) == alerts
    settings = {field.name for c in (CloudConfig, EdgeConfig, FleetConfig) for field in fields(c)}
    commands = {"repository", "json", "purge", "config", "help"}
    assert set(re.findall(r"--([a-z_]+)", PAGE)) <= settings | commands
