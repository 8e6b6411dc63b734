"""The settings of a service: one frozen dataclass, from flags, environment, YAML, then defaults."""

import logging
from collections.abc import Sequence
from typing import Any

from mien.errors import ConfigError


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


def check_within(name: str, value: float, smallest: float, largest: float) -> None:
    """Raise ConfigError, which names the field, for a value outside its range."""
    if not smallest <= value <= largest:
        raise ConfigError(f"{name} must be from {smallest} to {largest}, got {value}")


def logging_level(name: str) -> int:
    """A level's name, in any case, as the logging module counts it."""
    return logging.getLevelNamesMapping()[name.upper()]
