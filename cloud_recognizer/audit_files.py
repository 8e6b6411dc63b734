"""The files of the audit log: whole lines, bounded in size, number and age.

FILE grows; FILE.1, FILE.2 … are those before it, the highest number the oldest. A run that was
allowed more of them may have left some with higher numbers than there may be now.
"""

import errno
import itertools
import json
import os
import re
from datetime import datetime
from pathlib import Path
from typing import Final

# As many as any run may be allowed; a file with a higher number is somebody else's.
MOST_FILES: Final = 1000
# How far beyond its age an entry may get, so that files are not written anew all the time.
SLACK_S = 86_400.0


class AuditFiles:
    """Owned by one process. max_bytes: of one file. files: how many there may be."""

    def __init__(self, path: Path, max_bytes: int, files: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._all = [path, *(path.with_name(f"{path.name}.{n}") for n in range(1, files))]

    def append(self, line: bytes) -> None:
        """Write a whole line or nothing, and wait until it is on the disk. Raises OSError."""
        if self._path.exists() and self._path.stat().st_size + len(line) > self._max_bytes:
            self._rotate()
        handle = _open(self._path)
        try:
            size = os.fstat(handle).st_size
            if os.write(handle, line) < len(line):
                os.ftruncate(handle, size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(handle)
        finally:
            os.close(handle)

    def make(self) -> None:
        """See that the file can be written. Raises OSError."""
        os.close(_open(self._path))

    def _rotate(self) -> None:
        """FILE becomes FILE.1, that FILE.2 …; the oldest goes."""
        self._all[-1].unlink(missing_ok=True)
        for newer, older in reversed(list(itertools.pairwise(self._all))):
            if newer.exists():
                newer.replace(older)

    def forget(self, before_s: float) -> None:
        """Delete entries older than a Unix time, once the first is by a day. Raises OSError.

        Files beyond those that there may be go whole: nothing else would ever look at them.
        """
        for path in self._beyond():
            path.unlink(missing_ok=True)
        for path in self._all:
            if path.exists():
                _forget(path, before_s)

    def _beyond(self) -> list[Path]:
        numbered = re.compile(re.escape(self._path.name) + r"\.([1-9][0-9]*)", re.ASCII)
        found = ((path, numbered.fullmatch(path.name)) for path in self._path.parent.iterdir())
        left = range(len(self._all), MOST_FILES)
        return [path for path, number in found if number and int(number[1]) in left]


def _forget(path: Path, before_s: float) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    if not lines or _written_s(lines[0]) >= before_s - SLACK_S:
        return
    kept = list(itertools.dropwhile(lambda line: _written_s(line) < before_s, lines))
    if not kept:
        path.unlink()
        return
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    handle = _open(new)
    with os.fdopen(handle, "wb") as file:
        file.writelines(kept)
        file.flush()
        os.fsync(handle)
    new.replace(path)


def _written_s(line: bytes) -> float:
    """When an entry was written, Unix time; for what is none, long ago."""
    try:
        return datetime.fromisoformat(json.loads(line)["time"]).timestamp()
    except (ValueError, TypeError, KeyError):
        return 0.0


def _open(path: Path) -> int:
    # Opened for each entry: another program may have moved the file away, and its disk come back.
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
