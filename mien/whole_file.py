"""Files read within a bound and written whole or not at all."""

import os
import tempfile
from pathlib import Path

from mien.errors import BundleHashError, MienError


def read_bounded(path: Path, largest: int, refuse: type[MienError] = BundleHashError) -> bytes:
    """Return the bytes of a regular file, no more than `largest`.

    Raises `refuse` for anything else: a device, a pipe, what is too large or is gone.
    """
    try:
        if not path.is_file():
            raise refuse(f"{path} cannot be read: it is missing or is not a file")
        with path.open("rb") as stream:
            data = stream.read(largest + 1)
    except OSError as error:
        raise refuse(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > largest:
        raise refuse(f"{path} has more than {largest} bytes: is it the right one?")
    return data


def replace_file(path: Path, data: bytes) -> None:
    """Write a file that others read: they see the old one or the new one. Raises OSError."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            os.fchmod(descriptor, 0o644)  # a service of another user reads it
            stream.write(data)
            stream.flush()
            os.fsync(descriptor)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
