"""Run a module as a program that does not outlive the process that started it.

    python -m mien.cli.leash MODULE [ARGUMENT…]

On Linux the kernel sends SIGTERM when the parent is gone, even if it was killed. Elsewhere the
parent's own care has to do.
"""

import ctypes
import os
import runpy
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def tie_to_parent() -> None:
    """Have this process terminated when its parent ends."""
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != parent:  # it went before the kernel was told
        sys.exit(1)


if __name__ == "__main__":
    tie_to_parent()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
