"""What a process holds after large blocks are freed. Linux with glibc only."""

import ctypes
import subprocess
import sys

import pytest

import edge_encoder.device
import edge_encoder.memory
from edge_encoder.cli import main

# Frames of all sizes come and go, one small block stays behind each: with the sizes that glibc
# takes to by itself they would be in the heap, and the heap would stay.
PROGRAM = """
import sys, ctypes, threading
from pathlib import Path
from edge_encoder.memory import map_large_blocks

if sys.argv[1] == "mapped":
    map_large_blocks()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]

def frames():
    kept = []
    for _ in range(3):
        blocks = [libc.malloc(size << 10) for size in range(600, 1800, 100)]
        for block in blocks:
            ctypes.memset(block, 1, 300 << 10)
        kept.append(libc.malloc(64 << 10))
        for block in blocks:
            libc.free(block)

for _ in range(3):
    thread = threading.Thread(target=frames)
    thread.start()
    thread.join()
(line,) = (l for l in Path("/proc/self/status").read_text().splitlines() if l.startswith("VmRSS"))
print(line.split()[1])
"""


def resident_kb(kind: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, kind], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="it is glibc that is told"
)
def test_what_is_large_goes_back_when_it_is_freed() -> None:
    assert resident_kb("mapped") < resident_kb("as it is") - 1024


def test_a_device_says_so_before_it_loads_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []

    async def run(_: object) -> int:
        steps.append("run")
        return 0

    monkeypatch.setattr(edge_encoder.memory, "map_large_blocks", lambda: steps.append("mapped"))
    monkeypatch.setattr(edge_encoder.device, "run", run)
    assert main(["run", "--source", "0", "--server", "127.0.0.1:1", "--insecure", "true"]) == 0
    assert steps == ["mapped", "run"]
