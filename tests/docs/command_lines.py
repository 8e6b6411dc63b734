"""The flags of every program, and whether a program takes what a page gives it."""

import argparse
import dataclasses
import re
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jsonargparse
import pytest

import benchmarks.__main__ as measuring
import tests.fuzz.__main__ as fuzzing
from cloud_recognizer.config import CloudConfig
from edge_encoder.config import EdgeConfig
from edge_encoder.fleet.config import FleetConfig
from edge_encoder.spool import command as spool
from mien.cli.main import _parser as mien_parser
from trainer.cli import _parser as trainer_parser
from trainer.cli import _with_preset

_EVERYWHERE = frozenset({"--help", "--config"})
_FLAG = re.compile(r"(?<![\w-])--[a-z][\w.]*(?:-[a-z]+)*")


def flags_in(text: str) -> set[str]:
    """The flags that a text names."""
    return set(_FLAG.findall(text))


@cache
def flags_of() -> Mapping[str, frozenset[str]]:
    """Program and subcommand, as it is typed → the flags that it takes."""
    services = {
        "mien-edge run": EdgeConfig,
        "mien-edge fleet": FleetConfig,
        "mien-cloud serve": CloudConfig,
    }
    scripts = {
        "mien-edge spool": spool,
        "python -m tests.fuzz": fuzzing,
        **{f"python -m benchmarks {name}": measuring for name in measuring.BENCHMARKS},
    }
    found = {
        **{name: {f"--{f.name}" for f in dataclasses.fields(c)} for name, c in services.items()},
        **{name: _written_in(str(module.__file__)) for name, module in scripts.items()},
        **{f"mien {name}": flags for name, flags in _subcommands(mien_parser()).items()},
        **{f"mien-train {name}": flags for name, flags in _subcommands(_trainer()).items()},
    }
    return {name: frozenset(flags) | _EVERYWHERE for name, flags in found.items()}


def _written_in(script: str) -> set[str]:
    """Of a parser that is made where it is used."""
    return set(re.findall(r'add_argument\(\s*"(--\w+)"', Path(script).read_text()))


def _subcommands(parser: argparse.ArgumentParser) -> dict[str, set[str]]:
    return {name: _all_flags(sub) for name, sub in _nested(parser).items()}


def _nested(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """A parser's subcommands."""
    found = [action.choices for action in parser._actions if isinstance(action.choices, Mapping)]
    return {name: sub for choices in found for name, sub in choices.items()}


def _all_flags(parser: argparse.ArgumentParser) -> set[str]:
    """A parser's own, and those of its subcommands."""
    own = {flag for action in parser._actions for flag in action.option_strings}
    return own.union(*map(_all_flags, _nested(parser).values()))


@cache
def _trainer() -> jsonargparse.ArgumentParser:
    """mien-train's parser, which takes a second to make."""
    return trainer_parser()


def trainer_takes(arguments: Sequence[str]) -> None:
    """mien-train's parser, with the preset read. SystemExit for what it does not take."""
    parser = _trainer()
    parser.instantiate(parser.parse_args(_with_preset(list(arguments))))


def benchmark_takes(arguments: Sequence[str]) -> None:
    """`python -m benchmarks` up to where it would measure."""
    called: list[argparse.Namespace] = []

    def instead(options: argparse.Namespace) -> dict[str, Any]:
        called.append(options)
        return {"measured": "nothing"}

    with pytest.MonkeyPatch.context() as patch:
        for name in measuring.BENCHMARKS:
            patch.setitem(measuring.BENCHMARKS, name, instead)
        patch.setattr(sys, "argv", ["benchmarks", *without_json(arguments)])
        measuring.main()
    assert len(called) == 1


def without_json(arguments: Sequence[str]) -> list[str]:
    """Without --json FILE, which is written even when nothing was measured."""
    words = list(arguments)
    if "--json" in words:
        at = words.index("--json")
        del words[at : at + 2]
    return words


def fuzzer_takes(arguments: Sequence[str]) -> None:
    """`python -m tests.fuzz` up to where it would fuzz, or write to the corpus."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fuzzing, "fuzz", lambda *_: (True, ""))
        patch.setattr(fuzzing, "keep", lambda _: 0)
        patch.setattr(fuzzing, "write_seeds", lambda *_: None)
        patch.setattr(sys, "argv", ["fuzz", *arguments])
        assert fuzzing.main() == 0
