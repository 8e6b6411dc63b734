"""Fuzz for minutes: python -m tests.fuzz [--seconds 300] [--seed] [--keep] [TARGET …]

The seconds are shared by the targets. --seed writes the harnesses' seeds into the corpus in git;
--keep adds to it what earlier runs found that reaches further. An input that breaks a promise is
kept in build/fuzz, and `python -m tests.fuzz --replay FILE TARGET` shows what it does.
"""

import argparse
import importlib
import sys
from pathlib import Path

from tests.fuzz.fuzzer import CORPUS, FOUND, TARGETS, fuzz, keep, write_seeds


def main() -> int:
    """The exit code: 1 where something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--seed", action="store_true")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--replay", type=Path, metavar="FILE")
    parser.add_argument("targets", nargs="*", default=TARGETS, metavar="TARGET")
    options = parser.parse_args()
    if unknown := set(options.targets) - set(TARGETS):
        parser.error(f"no such target: {', '.join(unknown)}; there are {', '.join(TARGETS)}")
    sound = True
    for target in options.targets:
        module, corpus, grown = f"tests.fuzz.{target}", CORPUS / target, FOUND / target
        if options.replay:
            importlib.import_module(module).one_input(options.replay.read_bytes())
        elif options.seed:
            write_seeds(target, corpus)
        elif options.keep:
            print(f"{target}: {keep(target)} new inputs in {corpus}")
        else:
            crashes = FOUND / f"{target}-crash"
            seconds = max(options.seconds // len(options.targets), 1)
            good, said = fuzz(module, seconds, (grown, corpus), crashes)
            print(f"{target}: {'sound' if good else 'BROKEN'}\n{said[-3000:]}", flush=True)
            sound &= good
    return not sound


if __name__ == "__main__":
    sys.exit(main())
