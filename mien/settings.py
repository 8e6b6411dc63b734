"""The settings of a service: one frozen dataclass, from flags, environment, YAML, then defaults."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cache
from typing import TYPE_CHECKING, Any

from mien.errors import ConfigError

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser


def parse_settings(
    settings: type[Any], command: str, description: str, arguments: Sequence[str]
) -> dict[str, Any]:
    """The values for a dataclass `settings`, by field, as the arguments of `command` ask for.

    "mien-edge run" reads the environment's MIEN_EDGE_*. SystemExit with status 2 after jsonargparse
    has said what is wrong; ranges are the dataclass's own business.
    """
    # Here, for the core is installed without it.
    from jsonargparse import ArgumentParser, set_parsing_settings

    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(
        prog=command,
        description=description,
        allow_abbrev=False,
        env_prefix=command.partition(" ")[0].replace("-", "_").upper(),
        default_env=True,
    )
    parser.add_argument("--config", action="config", help="YAML file with any of the settings.")
    parser.add_class_arguments(settings)
    values = parser.parse_args(arguments)
    values.pop("config")
    return dict(values.as_dict())


def checked_settings(settings: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a dataclass `settings` from a mapping, converted to its types.

    What is left out, or None, has its default; neither flags nor environment are looked at.
    Raises ConfigError that names the field; ranges are the dataclass's own business.
    """
    from jsonargparse import ArgumentError

    known = {field.name for field in fields(settings)}
    for name in values:
        if name not in known:
            raise ConfigError(f"{name} is no setting; there are {', '.join(sorted(known))}")
    given = {name: value for name, value in values.items() if value is not None}
    checker = _checker(settings)  # type: ignore[arg-type]  # a class can be hashed, mypy or not
    try:
        return dict(checker.parse_object(given).as_dict())
    except ArgumentError as error:
        raise ConfigError(" ".join(str(error).split())) from error


@cache  # making it takes longer than all that it is used for
def _checker(settings: type[Any]) -> ArgumentParser:
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(settings)
    return parser


def check_within(name: str, value: float, smallest: float, largest: float) -> None:
    """Raise ConfigError, which names the field, for a value outside its range."""
    if not smallest <= value <= largest:
        raise ConfigError(f"{name} must be from {smallest} to {largest}, got {value}")


def logging_level(name: str) -> int:
    """A level's name, in any case, as the logging module counts it."""
    return logging.getLevelNamesMapping()[name.upper()]
