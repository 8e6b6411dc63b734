"""What libraries would tell their makers, and do not get to."""

import os


def forbid_telemetry() -> None:
    """Have ONNX Runtime and Ray collect and send nothing; to be called before they are imported.

    ONNX Runtime does since 1.29 by default, on Linux too: a device id and a database in the cache
    folder are sent to its maker. Its own switch at run time leaves both there; only this variable
    does not.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # on by default, too
