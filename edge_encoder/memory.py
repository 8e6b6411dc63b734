"""Memory of a small device, where glibc is what hands it out; elsewhere nothing is done."""

import ctypes
import sys
from collections.abc import Callable
from typing import Final

# mallopt's name for the size from which a block is mapped by itself, in malloc.h.
_M_MMAP_THRESHOLD: Final = -3
# Half a frame of 640×480. With glibc's own first value, 128 KiB, 4 MB less are held, but a frame
# takes half as much processor time again, for pages that come and go.
LARGE_BYTES: Final = 512 << 10


def map_large_blocks() -> None:
    """Let frames, weights and maps go back to the system as soon as they are freed.

    By default glibc raises the size with every such block that is freed, up to 32 MB, and keeps
    the like of it in the heap of whichever thread had it: 3 to 4 MB of a device's memory.
    """
    if (mallopt := _of_glibc("mallopt")) is not None:
        mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)


def return_freed_memory() -> None:
    """Hand the system what loading models has freed.

    ONNX Runtime converts weights several times while it plans a model. The analysis transform of
    the released bundle leaves 17 MB behind that glibc would otherwise keep for the process's life.
    """
    if (trim := _of_glibc("malloc_trim")) is not None:
        trim(0)


def _of_glibc(name: str) -> Callable[..., object] | None:
    """A function of glibc's; None elsewhere: musl has none of these."""
    if not sys.platform.startswith("linux"):
        return None
    found: Callable[..., object] | None = getattr(ctypes.CDLL(None), name, None)
    return found
