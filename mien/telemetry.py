"""What libraries would tell their makers, and do not get to."""

import os


def forbid_telemetry() -> None:
    """Have ONNX Runtime collect, keep and send nothing; to be called before it is imported.

    Since 1.29 it does by default, on Linux too: a device id and a database in the cache folder are
    sent to its maker. Its own switch at run time leaves both there; only this variable does not.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
