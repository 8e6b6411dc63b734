"""`mien-train` as a module, for torchrun: torchrun --nproc_per_node 2 -m trainer fit …"""

import contextlib
import os
import sys

from trainer.cli import main


def run() -> int:
    """Run the command in this process. Only the first of several prints its answer."""
    if os.environ.get("RANK", "0") == "0":
        code = main()
    else:
        with contextlib.redirect_stdout(None):
            code = main()
    if code == 0 and "torch" in sys.modules:
        from trainer.processes import leave

        leave()
    return code


if __name__ == "__main__":
    sys.exit(run())
