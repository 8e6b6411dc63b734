"""The rules as Prometheus itself reads and evaluates them; skipped where there is no promtool."""

import json
import math
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.rules import ALERTS, CONFIG, FILES, RECORDINGS
from tests.unit.deploy.alert_cases import CLOUD, EDGE, Case

PROMTOOL = shutil.which("promtool")
pytestmark = pytest.mark.skipif(
    PROMTOOL is None, reason="no promtool: it comes with Debian's package prometheus"
)
CASES = [*(("mien-cloud", case) for case in CLOUD), *(("mien-edge", case) for case in EDGE)]


def promtool(*arguments: object) -> None:
    command = [str(PROMTOOL), *map(str, arguments)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def evaluate(
    folder: Path,
    series: list[dict[str, str]],
    expectations: list[Any],
    alerts: Sequence[dict[str, Any]] = (),
) -> None:
    """Let promtool evaluate the rules over the series, a value a minute, and compare."""
    compared = {"promql_expr_test": expectations, "alert_rule_test": [*alerts]}
    document = {
        "rule_files": [str(path) for path in FILES],
        "evaluation_interval": "1m",
        # Recording rules before the alerts, as they would be one evaluation later.
        "group_eval_order": ["mien-cloud", "mien-edge", "mien-cloud-alerts", "mien-edge-alerts"],
        "tests": [
            {"interval": "1m", "input_series": series, **compared},
        ],
    }
    path = folder / "test.yml"
    path.write_text(json.dumps(document), encoding="utf-8")  # JSON is YAML
    promtool("test", "rules", path)


def of_target(series: dict[str, str], job: str, instance: str) -> list[dict[str, str]]:
    found = []
    for name, values in series.items():
        metric, _, inside = name.partition("{")
        labels = f'job="{job}",instance="{instance}"' + ("," + inside[:-1] if inside else "")
        found.append({"series": f"{metric}{{{labels}}}", "values": values})
    return found


def expect(expr: str, minute: int, *samples: tuple[str, float]) -> dict[str, Any]:
    expected = [{"labels": labels, "value": value} for labels, value in samples]
    return {"expr": expr, "eval_time": f"{minute}m", "exp_samples": expected}


def test_prometheus_takes_the_configuration_and_its_rules() -> None:
    promtool("check", "config", CONFIG)
    promtool("check", "rules", *FILES)


def test_every_alert_has_a_case() -> None:
    assert {case.alert for _, case in CASES} == {rule.name for rule in ALERTS}


@pytest.mark.parametrize(("job", "case"), CASES, ids=[case.alert for _, case in CASES])
def test_an_alert_fires_where_it_should_and_only_there(
    job: str, case: Case, tmp_path: Path
) -> None:
    series = of_target(case.bad, job, "bad") + of_target(case.good, job, "good")
    firing = f'group by (instance) (ALERTS{{alertname="{case.alert}",alertstate="firing"}})'
    silent = expect(firing, case.silent_m)
    evaluate(tmp_path, series, [silent, expect(firing, case.firing_m, ('{instance="bad"}', 1))])


def test_no_recognizer_at_all_is_one_that_is_down(tmp_path: Path) -> None:
    firing = 'count(ALERTS{alertname="MienRecognizerDown",alertstate="firing"})'
    series = of_target({"up": "1x60"}, "mien-edge", "door")
    evaluate(tmp_path, series, [expect(firing, 5, ("{}", 1))])


@pytest.mark.parametrize(
    ("down", "up", "alert"),
    [
        ("mien-cloud", "mien-edge", "MienRecognizerDown"),
        ("mien-edge", "mien-cloud", "MienEdgeDown"),
    ],
)
def test_what_is_down_is_called_by_its_name(down: str, up: str, alert: str, tmp_path: Path) -> None:
    series = of_target({"up": "0x60"}, down, "a") + of_target({"up": "1x60"}, up, "b")
    cloud = of_target({"up": "1x60"}, "mien-cloud", "c")
    firing = 'group by (alertname) (ALERTS{alertstate="firing"})'
    evaluate(tmp_path, series + cloud, [expect(firing, 5, (f'{{alertname="{alert}"}}', 1))])


def test_a_fleet_s_alert_names_the_camera(tmp_path: Path) -> None:
    series = of_target(
        {
            'mien_edge_spool_failing{camera="yard"}': "1x60",
            'mien_edge_spool_failing{camera="front-door"}': "0x60",
        },
        *("mien-edge", "host"),
    )
    firing = 'group by (camera) (ALERTS{alertstate="firing"}) and on () vector(1)'
    evaluate(
        tmp_path,
        [*series, *of_target({"up": "1x60"}, "mien-cloud", "a")],
        [expect(firing, 5, ('{camera="yard"}', 1))],
    )


@pytest.mark.parametrize(
    ("alert", "metric", "bad", "good", "severity", "summary"),
    [
        (
            *("MienDeviceCertificateExpires", "mien_edge_certificate_expiry_timestamp_seconds"),
            *("605400x60", "691200x60", "critical"),
            "The certificate of host yard expires in 6d 23h 50m 0s",
        ),
        (
            *("MienDeviceCertificateRefused", "mien_edge_certificate_refusals_total"),
            *("0+1x60", "3x60", "warning"),
            "host yard cannot use its new certificate and goes on with the old one",
        ),
    ],
    ids=["expires", "refused"],
)
def test_each_camera_of_a_fleet_has_a_certificate_of_its_own(
    alert: str, metric: str, bad: str, good: str, severity: str, summary: str, tmp_path: Path
) -> None:
    cameras = {f'{metric}{{camera="yard"}}': bad, f'{metric}{{camera="front-door"}}': good}
    labels = {"job": "mien-edge", "instance": "host", "camera": "yard", "severity": severity}
    runbook = "docs/troubleshooting.md#a-certificate-expires"
    told = {"exp_labels": labels, "exp_annotations": {"summary": summary, "runbook": runbook}}
    fires = {"eval_time": "20m", "alertname": alert, "exp_alerts": [told]}
    evaluate(tmp_path, of_target(cameras, "mien-edge", "host"), [], [fires])


CLOUD_SERIES = {
    'mien_cloud_faces_total{rpc="StreamFaces"}': "0+600x60",
    'mien_cloud_faces_total{rpc="Recognize"}': "0+120x60",
    "mien_cloud_payload_bytes_total": "0+14400x60",
    'mien_cloud_chunks_total{status="result"}': "0+90x60",
    'mien_cloud_chunks_total{status="rejected"}': "0+10x60",
    'mien_cloud_dropped_total{reason="too_late"}': "0+10x60",
    'mien_cloud_dropped_total{reason="duplicate"}': "0+100x60",
    'mien_cloud_dropped_total{reason="shadow_full"}': "0+60x60",
    "mien_cloud_credit_window": "8x7 2 8x60",
    'mien_cloud_probes_total{outcome="held"}': "0+1x60",
    'mien_cloud_chunk_seconds_bucket{le="0.1"}': "0+600x60",
    'mien_cloud_chunk_seconds_bucket{le="+Inf"}': "0+600x60",
    'mien_cloud_queue_seconds_bucket{le="0.1"}': "0x60",  # nothing came: no value, not NaN
    'mien_cloud_queue_seconds_bucket{le="+Inf"}': "0x60",
}
CLOUD_FIGURES = {
    "instance:mien_cloud_faces:rate5m": [("", 12.0)],
    "instance:mien_cloud_face_bits:mean5m": [("", 160.0)],
    "instance:mien_cloud_chunk_seconds:p99_5m": [("", 0.099)],
    "instance:mien_cloud_queue_seconds:p99_5m": [],
    "instance_reason:mien_cloud_dropped:rate5m": [
        ('reason="duplicate"', 100 / 60),
        ('reason="shadow_full"', 1.0),
        ('reason="too_late"', 10 / 60),
    ],
    # 100 settled, the late ones among them, and 100 duplicates beside.
    "instance_reason:mien_cloud_dropped_chunks:ratio5m": [
        ('reason="duplicate"', 0.5),
        ('reason="too_late"', 0.05),
    ],
    "instance:mien_cloud_rejected_chunks:ratio5m": [("", 0.1)],
    "instance:mien_cloud_credit_window:min5m": [("", 2.0)],
    "instance_outcome:mien_cloud_probes:increase15m": [('outcome="held"', 10.0)],
}
EDGE_SERIES = {
    "mien_edge_faces_total": "0+60x60",
    "mien_edge_payload_bytes_total": "0+1200x60",
    "mien_edge_frames_total": "0+300x60",
    'mien_edge_dropped_total{reason="camera_newer_frame"}': "0+100x60",
    'mien_edge_dropped_total{reason="spool_age"}': "0+120x60",
    "mien_edge_spool_bytes": "16x60",
    "mien_edge_spool_limit_bytes": "64x60",
    "mien_edge_lag_seconds": "9 9 9 9 9 1.5 3x60",
    'mien_edge_frame_cpu_seconds_bucket{le="0.01"}': "0+600x60",
    'mien_edge_frame_cpu_seconds_bucket{le="+Inf"}': "0+600x60",
}
EDGE_FIGURES = {
    "instance:mien_edge_faces:rate5m": [("", 1.0)],
    "instance:mien_edge_face_bits:mean5m": [("", 160.0)],
    "instance:mien_edge_frame_cpu_seconds:p99_5m": [("", 0.0099)],
    "instance_reason:mien_edge_dropped_faces:ratio5m": [('reason="spool_age"', 2.0)],
    "instance_reason:mien_edge_dropped_frames:ratio5m": [('reason="camera_newer_frame"', 0.25)],
    "instance:mien_edge_spool_fill:ratio": [("", 0.25)],
    "instance:mien_edge_lag_seconds:min5m": [("", 1.5)],
}
# An hour of one figure and half an hour of another, of which the mean of the day knows nothing.
CLOUD_DAY = {
    'mien_cloud_accuracy_estimate{bundle_id="b",group="lobby"}': "0.8x60 0.6x40",
    'mien_cloud_accuracy_window_faces{bundle_id="b",group="lobby"}': "500x101",
    'mien_cloud_accuracy_estimate{bundle_id="b",group="other"}': "0.3x101",
    'mien_cloud_accuracy_window_faces{bundle_id="b",group="other"}': "499x101",
    'mien_cloud_drift_psi{bundle_id="b",group="lobby",of="confidence",reference="bundle"}': (
        "0.1x60 0.4x40"
    ),
}
CLOUD_DAY_FIGURES = {
    "instance_bundle_group:mien_cloud_accuracy_estimate:from_500": [
        ('bundle_id="b",group="lobby"', 0.6)
    ],
    "instance_bundle_group:mien_cloud_accuracy_estimate:mean1d": [
        ('bundle_id="b",group="lobby"', 0.8)
    ],
    "instance_bundle_group:mien_cloud_drift_psi:mean1d": [
        ('bundle_id="b",group="lobby",of="confidence",reference="bundle"', 0.1)
    ],
}
EDGE_DAY = {
    "mien_edge_faces_total": "0+60x100",
    "mien_edge_payload_bytes_total": "0+1200x60 72000+4800x40",
}
EDGE_DAY_FIGURES = {"instance:mien_edge_face_bits:mean1d": [("", 160.0)]}


@pytest.mark.parametrize(
    ("job", "series", "figures", "minute"),
    [
        ("mien-cloud", CLOUD_SERIES, CLOUD_FIGURES, 10),
        ("mien-edge", EDGE_SERIES, EDGE_FIGURES, 10),
        ("mien-cloud", CLOUD_DAY, CLOUD_DAY_FIGURES, 90),
        ("mien-edge", EDGE_DAY, EDGE_DAY_FIGURES, 90),
    ],
    ids=["cloud", "edge", "cloud, a day", "edge, a day"],
)
def test_the_recorded_figures_are_right(
    job: str,
    series: dict[str, str],
    figures: dict[str, list[tuple[str, float]]],
    minute: int,
    tmp_path: Path,
) -> None:
    expectations = []
    for name, samples in figures.items():
        # Rounded by PromQL, for promtool compares floats by their last bit.
        expected = [(_labels(job, own), round(value, 4)) for own, value in samples]
        expectations.append(expect(f"round({name}, 0.0001)", minute, *expected))
        assert all(math.isfinite(value) for _, value in samples)
    evaluate(tmp_path, of_target(series, job, "a"), expectations)


def _labels(job: str, own: str) -> str:
    return "{" + ",".join(filter(None, (f'instance="a",job="{job}"', own))) + "}"


def test_every_recorded_figure_is_checked() -> None:
    checked = {*CLOUD_FIGURES, *EDGE_FIGURES, *CLOUD_DAY_FIGURES, *EDGE_DAY_FIGURES}
    assert checked == {rule.name for rule in RECORDINGS}
