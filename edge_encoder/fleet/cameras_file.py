"""The file that lists the cameras of a fleet, and noticing that it has changed.

defaults:                    # any setting of `mien-edge run`, for every camera
  server: recognizer:50051   # or several: [first:50051, second:50051]
cameras:
  front-door:                # a name: it is in events, logs and metrics
    source: rtsp://10.0.0.7/stream
    expected_fps: 15
  yard:
    source: 0
"""

import re
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from edge_encoder.config import EdgeConfig
from mien.errors import ConfigError
from mien.settings import checked_settings

MAX_CAMERAS: Final = 64
MAX_FILE_BYTES: Final = 1 << 17
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")
# Two cameras must not share these, so they cannot be anyone's default.
OWN: Final = ("source", "device_id", "record", "spool")
# The supervisor's own business.
SUPERVISED: Final = ("results", "metrics_host", "metrics_port")
# What may be several values.
LISTS: Final = ("server",)

Cameras = Mapping[str, EdgeConfig]


class CamerasFile:
    """Reads the file, and says when it should be read again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: tuple[int, ...] | None = None
        self._seen: tuple[int, ...] | None = None

    def read(self) -> Cameras:
        """The cameras that it lists now. Raises ConfigError that names the field."""
        # Looked at before it is read: what is written meanwhile is a change.
        self._read = self._seen = self._state()
        try:
            with self._path.open("rb") as file:
                text = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise ConfigError(f"cameras: {self._path} cannot be read: {error.strerror}") from error
        if len(text) > MAX_FILE_BYTES:
            raise ConfigError(f"cameras: {self._path} is longer than {MAX_FILE_BYTES} bytes")
        return parse_cameras(text)

    def has_changed(self) -> bool:
        """Whether it is another file than was read last, and the same as at the last call.

        So a file that is being written is left alone until nothing has happened to it from one
        call to the next.
        """
        before, self._seen = self._seen, self._state()
        return self._seen != self._read and self._seen == before

    def _state(self) -> tuple[int, ...] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return (found.st_mtime_ns, found.st_size, found.st_ino)


def parse_cameras(text: bytes) -> Cameras:
    """What a file says. Raises ConfigError that names the field, without showing passwords."""
    document = _mapping(_load(text), "the file")
    if unknown := document.keys() - {"defaults", "cameras"}:
        raise ConfigError(f"{min(unknown)} is unknown; the file has 'defaults' and 'cameras'")
    if "cameras" not in document:
        raise ConfigError("cameras is missing; 'cameras: {}' has none")
    defaults = _settings(document.get("defaults", {}), "defaults")
    for name in defaults:
        if name in OWN:
            raise ConfigError(f"defaults.{name}: each camera must have its own")
    listed = _mapping(document["cameras"], "cameras")
    if len(listed) > MAX_CAMERAS:
        raise ConfigError(f"cameras may list {MAX_CAMERAS}, not {len(listed)}")
    cameras = {name: _camera(name, settings, defaults) for name, settings in listed.items()}
    _check_apart(cameras)
    return cameras


class _Loader(yaml.SafeLoader):
    """YAML in which a key that is there twice is a mistake, not a correction."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                line = key.start_mark.line + 1
                raise ConfigError(f"{key.value} is there twice, once more in line {line}")
            if isinstance(key, yaml.ScalarNode):
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _load(text: bytes) -> object:
    try:
        return yaml.load(text, _Loader)  # noqa: S506  # a safe loader
    except ConfigError:
        raise
    except yaml.MarkedYAMLError as error:
        # YAML's own message quotes the line, in which a password may stand.
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"the file is no YAML: {error.problem}{line}") from None
    except (yaml.YAMLError, UnicodeError, ValueError, TypeError, RecursionError) as error:
        raise ConfigError(f"the file is no YAML: {type(error).__name__}") from None


def _mapping(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ConfigError(f"{what} must be a mapping from names, not {type(value).__name__}")
    return value


def _settings(given: object, what: str) -> dict[str, Any]:
    settings = _mapping(given, what)
    for name, setting in settings.items():
        if name in SUPERVISED:
            raise ConfigError(f"{what}.{name}: it is a setting of mien-edge fleet itself")
        listed = setting if name in LISTS and isinstance(setting, list) else [setting]
        for value in listed:
            if not isinstance(value, str | int | float | None):
                raise ConfigError(f"{what}.{name} must be one value, not {type(value).__name__}")
            if isinstance(value, str) and "\0" in value:
                raise ConfigError(f"{what}.{name} has a NUL character in it")
    return settings


def _camera(name: str, value: object, defaults: dict[str, Any]) -> EdgeConfig:
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"cameras.{name[:40]}: a name is 1 to 32 letters, digits, '.', '_' or '-', "
            "the first a letter or digit"
        )
    own = _settings(value, f"cameras.{name}")
    if own.get("source") is None:
        raise ConfigError(f"cameras.{name}.source is missing")
    settings = defaults | own
    if type(settings["source"]) is int:  # a camera's number, which need not be quoted
        settings["source"] = str(settings["source"])
    if settings.get("device_id") is None:
        settings["device_id"] = f"{EdgeConfig.host()[: 63 - len(name)]}.{name}"
    try:
        # Its metrics are asked for at a port of its own choice, by the supervisor alone.
        return EdgeConfig(**checked_settings(EdgeConfig, settings | {"metrics_port": 0}))
    except ConfigError as error:
        raise ConfigError(f"cameras.{name}: {error}") from error


def _check_apart(cameras: Cameras) -> None:
    for field in ("device_id", "record", "spool"):
        seen: dict[Any, str] = {}
        for name, camera in cameras.items():
            value = getattr(camera, field)
            if value is not None and value in seen:
                raise ConfigError(f"cameras.{name}.{field} is that of {seen[value]}, too: {value}")
            seen[value] = name
