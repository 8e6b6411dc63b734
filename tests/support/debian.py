"""Trees of Debian's packages, made without installing anything on this machine."""

import shutil
import subprocess
from pathlib import Path

SUITE = "bookworm"
TIMEOUT_S = 1200.0


def why_not() -> str | None:
    """Why there are none to be had here; None where there may be."""
    return None if shutil.which("mmdebstrap") else "no mmdebstrap: apt install mmdebstrap"


def tree(
    packages: str,
    target: Path,
    *more: str,
    variant: str = "extract",
    suite: str = SUITE,
    architecture: str | None = None,
) -> None:
    """Write packages and what they depend on into a folder or, by its name, a tar file.

    packages: names with commas. variant: `extract` runs nothing of theirs, `minbase` installs them
    into a system of their own. Raises CalledProcessError where that fails.
    """
    options = [f"--variant={variant}", f"--include={packages}", *more]
    if architecture:
        # Whether its programs run here is for who asks to know: kernels say it in many ways.
        options += [f"--architectures={architecture}", "--skip=check/qemu"]
    command = ["mmdebstrap", "--quiet", *options, suite, str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    if done.returncode:
        raise subprocess.CalledProcessError(
            done.returncode, command, done.stdout, done.stderr[-2000:]
        )
