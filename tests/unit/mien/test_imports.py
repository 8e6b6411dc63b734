"""What the core may load: numpy, protobuf and the standard library."""

import subprocess
import sys

import pytest

# cython_runtime: a name that numpy 1.26 makes up while it loads.
ALLOWED = {"mien", "numpy", "google", "cython_runtime"}


@pytest.mark.parametrize(
    "module",
    [
        *("mien.codec", "mien.compiled_reader", "mien.bundle", "mien.probe"),
        *("mien.inspect", "mien.errors", "mien.rollout", "mien.signing"),
        *(f"mien.messages.{name}" for name in ("downward", "labels", "upward", "watched")),
    ],
)
def test_a_module_of_the_core_loads_nothing_but_numpy_and_protobuf(module):
    script = (
        "import sys; before = set(sys.modules)\n"
        f"import {module}\n"
        "roots = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(*sorted(root for root in roots if root not in sys.stdlib_module_names))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    loaded = set(done.stdout.split())
    assert "mien" in loaded
    assert {root for root in loaded if not root.startswith("_")} <= ALLOWED
