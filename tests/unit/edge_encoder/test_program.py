"""How the process ends."""

import subprocess
import sys

import pytest

STUCK = """
import threading, time
from edge_encoder import cli

threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
cli.program({arguments!r})
"""


@pytest.mark.parametrize(
    ("arguments", "code", "said"), [(["--help"], 0, "usage: mien-edge"), (["fly"], 2, "usage:")]
)
def test_a_camera_that_is_stuck_keeps_neither_the_exit_code_nor_what_was_said(
    arguments: list[str], code: int, said: str
) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", STUCK.format(arguments=arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ran.returncode == code
    assert said in ran.stdout + ran.stderr
