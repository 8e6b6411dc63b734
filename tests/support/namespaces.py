"""Network namespaces without names: they are gone when nobody holds them, whatever happens.

Linux only, and only for who may make them (root, or CAP_SYS_ADMIN and CAP_NET_ADMIN).
"""

import ctypes
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CLONE_NEWNET = 0x40000000  # linux/sched.h
_libc = ctypes.CDLL(None, use_errno=True)
_OWN = "/proc/thread-self/ns/net"


class Namespace:
    """A network of its own, with its loopback up. Close it when its processes are gone."""

    def __init__(self) -> None:
        """Raises OSError where that is not allowed."""
        made: list[int | OSError] = []

        def make() -> None:  # a thread of its own: it leaves the process's network for good
            try:
                _call("unshare", CLONE_NEWNET)
                made.append(os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC))
            except OSError as error:
                made.append(error)

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        (outcome,) = made
        if isinstance(outcome, OSError):
            raise outcome
        self._descriptor = outcome
        self.run("ip", "link", "set", "lo", "up")

    @contextmanager
    def entered(self) -> Iterator[None]:
        """What this thread opens or starts meanwhile belongs to this network."""
        own = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _call("setns", self._descriptor, CLONE_NEWNET)
            try:
                yield
            finally:
                _call("setns", own, CLONE_NEWNET)
        finally:
            os.close(own)

    def run(self, *command: str) -> None:
        """Run a command in this network."""
        with self.entered():
            subprocess.run(command, check=True, capture_output=True)

    def close(self) -> None:
        os.close(self._descriptor)


def _call(name: str, *arguments: int) -> None:
    if getattr(_libc, name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def why_not() -> str | None:
    """Why networks cannot be made here; None where they can."""
    if not Path("/dev/net/tun").exists():
        return "no /dev/net/tun"
    try:
        Namespace().close()
    except FileNotFoundError:
        return "no `ip`: install iproute2"
    except OSError as error:
        return f"no rights to make network namespaces ({error.strerror}); run as root"
    except subprocess.CalledProcessError as error:
        return f"`ip` fails: {error.stderr.decode().strip()}"
    return None
