"""Fuzz one target in this process, which libFuzzer ends: python -m tests.fuzz.one_target MODULE …

What follows MODULE, the harness, is libFuzzer's. Only what is ours is instrumented: coverage of the
libraries beneath would have the fuzzer explore those.
"""

import importlib
import sys

import atheris

OURS = ["mien", "edge_encoder", "cloud_recognizer", "tests.support.planted_defect"]


def main() -> None:
    """Never returns."""
    name, *options = sys.argv[1:]
    with atheris.instrument_imports(include=OURS):
        harness = importlib.import_module(name)
    atheris.Setup([sys.argv[0], *options, f"-max_len={harness.MAX_BYTES}"], harness.one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
