"""The configuration for Envoy, read by Envoy itself."""

import subprocess
import sysconfig
from pathlib import Path

import pytest

from tests.support.envoy import CONFIG, why_not


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_envoy_takes_its_configuration_without_a_warning() -> None:
    program = Path(sysconfig.get_path("scripts")) / "envoy"
    command = [program, "--mode", "validate", "--log-level", "warning", "-c", CONFIG]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    said = ran.stdout + ran.stderr
    assert ran.returncode == 0, said
    assert "deprecated" not in said
    assert "[warning]" not in said
