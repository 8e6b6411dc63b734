"""Devices by the operator's groups, so that figures can tell places apart and name no device."""

import re
from collections.abc import Mapping
from fnmatch import translate
from functools import lru_cache
from typing import Final

from mien.errors import ConfigError

MAX_GROUPS: Final = 32
MAX_PATTERNS: Final = 256
# Devices whose group is remembered; the others' patterns are tried again.
REMEMBERED: Final = 4096
# What is in no group, and the faces of Recognize calls, which come from no device.
OTHER: Final = "other"
CALLS: Final = "calls"

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_PATTERN = re.compile(r"[A-Za-z0-9._*?\[\]!-]{1,64}", re.ASCII)


class DeviceGroups:
    """Which group a device id belongs to: that of the first pattern that matches all of it.

    patterns: shell patterns -> group, in the order in which they are tried. Raises ConfigError.
    """

    def __init__(self, patterns: Mapping[str, str]) -> None:
        _check(patterns)
        compiled = [(re.compile(translate(glob)), name) for glob, name in patterns.items()]

        @lru_cache(REMEMBERED)
        def of(device_id: str) -> str:
            return next((name for glob, name in compiled if glob.match(device_id)), OTHER)

        self.of = of


def _check(patterns: Mapping[str, str]) -> None:
    if len(patterns) > MAX_PATTERNS:
        raise ConfigError(f"device_groups may have {MAX_PATTERNS} patterns, got {len(patterns)}")
    for glob, name in patterns.items():
        if not _PATTERN.fullmatch(glob):
            raise ConfigError(
                f"device_groups must map patterns of device ids (letters, digits, '.', '_', '-', "
                f"'*', '?', '[…]'), got {glob[:80]!r}"
            )
        if not _NAME.fullmatch(name) or name in (OTHER, CALLS):
            raise ConfigError(
                f"device_groups must name groups with letters, digits, '.', '_' or '-', and not "
                f"{OTHER!r} or {CALLS!r}, got {name[:80]!r}"
            )
    if (groups := len(set(patterns.values()))) > MAX_GROUPS:
        raise ConfigError(f"device_groups may name {MAX_GROUPS} groups, got {groups}")
