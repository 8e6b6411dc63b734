"""A disk that somebody else fills, and empties again."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path) -> Iterator[Callable[[bool], None]]:
    """A switch: a file system of a few megabytes, filled to its end by somebody else, or not."""
    mount = ["/bin/mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("no rights to mount a file system")
    other = folder / "somebody-else"

    def switch(full: bool) -> None:
        if not full:
            other.unlink(missing_ok=True)
            return
        with other.open("ab", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                return

    try:
        yield switch
    finally:
        subprocess.run(["/bin/umount", "--lazy", str(folder)], check=True)
