"""One /metrics for all cameras of a supervisor."""

import socket

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from edge_encoder.capture.health import CameraHealth
from edge_encoder.fleet.metrics import FleetCollector, FleetMetrics
from edge_encoder.metrics import Metrics
from mien.metrics_endpoint import metrics_endpoint


def page_of(collector: FleetCollector) -> str:
    registry = CollectorRegistry()
    registry.register(collector)
    return generate_latest(registry).decode()


def test_every_process_s_metrics_are_there_with_its_camera_s_name() -> None:
    door, yard = Metrics(), Metrics()
    door.show_health(CameraHealth())
    door.lose_camera("source_ended")
    yard.frames.inc(3)
    fleet = FleetMetrics()
    fleet.add_camera("door")
    fleet.add_camera("yard")
    with (
        metrics_endpoint(door.registry, "127.0.0.1", 0) as door_port,
        metrics_endpoint(yard.registry, "127.0.0.1", 0) as yard_port,
    ):
        assert door_port is not None
        assert yard_port is not None
        collector = FleetCollector(fleet, lambda: {"door": door_port, "yard": yard_port})
        page = page_of(collector)
        assert 'mien_edge_frames_total{camera="yard"} 3.0' in page
        assert 'mien_edge_frames_total{camera="door"} 0.0' in page
        assert 'mien_edge_camera_losses_total{camera="door",code="source_ended"} 1.0' in page
        assert 'mien_edge_camera_health{camera="door"} 0.0' in page
        assert 'mien_edge_camera_health{camera="yard"}' not in page
        assert 'mien_edge_frame_cpu_seconds_bucket{camera="yard",le="+Inf"}' in page
        # Each family once, as Prometheus asks for, and nothing piles up from page to page.
        heads = [line for line in page.splitlines() if line.startswith("# TYPE")]
        assert len(heads) == len(set(heads))
        assert len(page_of(collector).splitlines()) == len(page.splitlines())
        assert list(text_string_to_metric_families(page))


def test_a_process_that_gives_no_metrics_costs_only_its_own() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        ports = {"silent": silent.getsockname()[1], "gone": 1}
        fleet = FleetMetrics()
        fleet.add_camera("silent")
        fleet.add_camera("gone")
        fleet.up("silent", True)
        page_of(FleetCollector(fleet, lambda: ports))
        page = page_of(FleetCollector(fleet, dict))
    assert 'mien_edge_fleet_camera_up{camera="silent"} 1.0' in page
    assert 'mien_edge_fleet_failed_scrapes_total{camera="silent"} 1.0' in page
    assert 'mien_edge_fleet_failed_scrapes_total{camera="gone"} 1.0' in page


def test_a_camera_that_leaves_the_file_leaves_the_page_though_it_is_still_being_asked() -> None:
    fleet = FleetMetrics()
    fleet.add_camera("door")
    fleet.restart("door", "signal")
    fleet.remove_camera("door")
    page = page_of(FleetCollector(fleet, lambda: {"door": 1}))
    assert "door" not in page
    assert "door" not in page_of(FleetCollector(fleet, dict))
