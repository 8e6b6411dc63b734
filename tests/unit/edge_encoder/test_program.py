"""How the process ends."""

import os
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


def test_a_reader_who_has_seen_enough_of_the_help_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    ran = subprocess.run(
        [sys.executable, "-m", "edge_encoder.cli", "--help"],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=120,
    )
    os.close(writer)
    assert (ran.returncode, ran.stderr) == (0, "")
