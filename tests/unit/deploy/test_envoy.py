"""The configuration for Envoy, read by Envoy itself."""

import subprocess
import sysconfig
from pathlib import Path

import pytest
import yaml

from benchmarks.envoy import CONFIG, why_not


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_envoy_takes_its_configuration_without_a_warning() -> None:
    program = Path(sysconfig.get_path("scripts")) / "envoy"
    command = [program, "--mode", "validate", "--log-level", "warning", "-c", CONFIG]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    said = ran.stdout + ran.stderr
    assert ran.returncode == 0, said
    assert "deprecated" not in said
    assert "[warning]" not in said


def test_envoy_lets_through_the_streams_of_a_whole_cell() -> None:
    """Its own bound is 1024 connections, and a device has one for as long as it lives."""
    (cluster,) = yaml.safe_load(CONFIG.read_text())["static_resources"]["clusters"]
    (bounds,) = cluster["circuit_breakers"]["thresholds"]
    cell = 10_000  # docs/million-devices.md; one Envoy of it may be left alone
    assert min(bounds[f"max_{what}"] for what in ("connections", "pending_requests")) >= cell
