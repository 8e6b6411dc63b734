"""The profile `metrics` of docker-compose.yml: what is counted, ruled, and said when one is away.

Grafana is not brought up: no package has it, only its own image. What it is given is checked as
files in tests/unit/deploy/test_dashboards.py, and each panel's query against a real Prometheus
under load in tests/e2e/test_dashboards.py; nobody has seen it drawn.
"""

import json
import time
from typing import Any

from tests.support.consumer import Consumer
from tests.support.containers import (
    CLIP_FACES,
    MARKS,
    START_S,
    consumer,
    until_ended,
    until_healthy,
    until_seen,
)
from tests.support.lab import Lab
from tests.support.lab_device import inside
from tests.support.podman import Podman
from tests.support.prometheus import Prometheus, alerts
from tests.support.rules import RULES
from tests.support.stand_ins import ALERTMANAGER, ENVOY, NATS, PROMETHEUS, provide
from tests.support.waiting import until

pytestmark = MARKS
PROMETHEUS_PORT, ALERTMANAGER_PORT = 9090, 9093
METRICS = ("--profile", "metrics")
FLEET = (*METRICS, "--profile", "fleet")
RECOGNIZERS = 3
DOWN = "MienRecognizerDown"


def up(podman: Podman, profiles: tuple[str, ...], *services: str, scale: int = 1) -> list[str]:
    """Bring services up beside the monitoring; returns their containers, all healthy."""
    for image in (PROMETHEUS, ALERTMANAGER):
        provide(podman, image)
    wanted = (*services, "prometheus", "alertmanager")
    scaled = ("--scale", f"recognizer={scale}") if "recognizer" in services else ()
    podman.compose(*profiles, "up", "--detach", *scaled, *wanted)
    containers = [one for service in wanted for one in podman.containers(service)]
    # By the checks that the compose file has for them.
    until_healthy(podman, *containers)
    return containers


def asked(podman: Podman, expr: str) -> list[float]:
    """The values that Prometheus has for an expression, where compose publishes it."""
    with inside(podman.network):
        answer = Prometheus(PROMETHEUS_PORT).query(expr)
    return [float(series["value"][1]) for series in answer]


def until_asked(podman: Podman, expr: str, expected: list[float]) -> None:
    """Wait until Prometheus answers so, to a millionth: it scrapes and evaluates in turns."""
    until(
        lambda: [round(value, 6) for value in asked(podman, expr)] == expected,
        lambda: f"{expr}: {asked(podman, expr)}, not {expected}",
        patience_s=START_S,
        look_s=1.0,
    )


def heard(podman: Podman) -> set[tuple[str, str]]:
    """Names and severities of what Alertmanager has at the moment."""
    with inside(podman.network):
        found = alerts(ALERTMANAGER_PORT)
    return {(alert["labels"]["alertname"], alert["labels"]["severity"]) for alert in found}


def until_heard(podman: Podman, expected: set[tuple[str, str]]) -> None:
    until(
        lambda: heard(podman) == expected,
        lambda: f"{heard(podman)}, not {expected}",
        patience_s=START_S,
        look_s=1.0,
    )


def filmed(podman: Podman, watching: Consumer) -> dict[str, Any]:
    """Let the device film the clip; returns what it says of it at its end."""
    podman.compose(*METRICS, "up", "--detach", "edge")
    (edge,) = podman.containers("edge")
    until_seen(podman, watching, CLIP_FACES, edge)
    until_ended(podman, edge)
    said = [line for line in podman.logs(edge).splitlines() if '"summary"' in line]
    summary: dict[str, Any] = json.loads(said[-1])
    return summary


def test_prometheus_has_the_books_of_the_clip_and_alertmanager_a_recognizer_that_stopped(
    podman: Podman, lab: Lab
) -> None:
    cloud, *_ = up(podman, METRICS, "cloud")
    until_asked(podman, 'up{job="mien-cloud"}', [1])
    watching = consumer(podman, lab, "127.0.0.1:50051", cloud)
    summary = filmed(podman, watching)

    # The device's own books, the consumer's and Prometheus's.
    assert (summary["faces_sent"], summary["faces_recognised"]) == (CLIP_FACES, CLIP_FACES)
    assert (summary["drops"], summary["errors"]) == ({}, {})
    assert (watching.seen.total(), len(watching.seen)) == (CLIP_FACES, CLIP_FACES)
    until_asked(podman, "sum(mien_cloud_faces_total)", [CLIP_FACES])
    assert asked(podman, "sum(mien_cloud_payload_bytes_total)") == [summary["payload_bytes"]]
    assert asked(podman, "sum(mien_cloud_dropped_total)") == [0]
    # What is recorded is a quotient of two rates over the same moments: of the very same counts.
    bits = round(8 * summary["payload_bytes"] / CLIP_FACES, 6)
    until_asked(podman, "instance:mien_cloud_face_bits:mean5m", [bits])

    with inside(podman.network):
        rules = Prometheus(PROMETHEUS_PORT).rules()
    assert [(rule["name"], rule["health"]) for rule in rules] == [(one.name, "ok") for one in RULES]
    assert heard(podman) == set()
    podman.compose("stop", "cloud")
    stopped_s = time.monotonic()
    until_heard(podman, {(DOWN, "critical")})
    heard_s = time.monotonic() - stopped_s
    podman.compose("start", "cloud")
    until_healthy(podman, cloud)
    until_heard(podman, set())
    lab.entry.rows = [("faces", CLIP_FACES), ("rules", len(rules)), ("alerts", 1)]
    lab.entry.figures = {"bits a face": bits, "heard after s": heard_s}


def test_prometheus_finds_every_recognizer_of_the_fleet_and_its_camera(
    podman: Podman, lab: Lab
) -> None:
    for image in (NATS, ENVOY):
        provide(podman, image)
    # With NATS, of which what it does is asked below.
    up(podman, FLEET, "recognizer", "envoy", scale=RECOGNIZERS)
    until_asked(podman, 'up{job="mien-cloud"}', [1] * RECOGNIZERS)
    until_asked(podman, "mien_cloud_hub_connected", [1] * RECOGNIZERS)
    podman.compose(*FLEET, "up", "--detach", "--no-deps", "camera")
    # Each clip is a process of seconds: some of them end before they are found.
    until_asked(podman, 'max(max_over_time(up{job="mien-edge"}[1h]))', [1])
    until_asked(podman, "max(max_over_time(mien_edge_connected[1h]))", [1])
    until_asked(podman, "sum(mien_cloud_faces_total) > bool 0", [1])
    lab.entry.rows = [("recognizers", RECOGNIZERS), ("faces", round(sum(faces(podman))))]


def faces(podman: Podman) -> list[float]:
    return asked(podman, "mien_cloud_faces_total")
