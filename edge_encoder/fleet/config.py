"""The settings of the supervisor of several cameras; the cameras' own are in their file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mien.settings import check_within, logging_level, parse_settings


@dataclass(frozen=True)
class FleetConfig:
    """Settings of the supervisor."""

    cameras: Path
    """YAML file that lists the cameras with their settings; it is applied whenever it changes."""
    results: str = "-"
    """File for the JSON lines of all cameras; - is standard output."""
    stop_grace_s: float = 10.0
    """Seconds a camera that is to stop may take to send what it has."""
    metrics_host: str = "127.0.0.1"
    """Address that /metrics of all cameras listens on."""
    metrics_port: int | None = None
    """TCP port of /metrics; 0 lets the system choose, null turns it off."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least serious messages of the supervisor to log."""

    def __post_init__(self) -> None:
        check_within("stop_grace_s", self.stop_grace_s, 0, 3600)
        if self.metrics_port is not None:
            check_within("metrics_port", self.metrics_port, 0, 65535)

    @property
    def logging_level(self) -> int:
        """`log_level` as the logging module counts it."""
        return logging_level(self.log_level)


def parse_fleet_config(arguments: Sequence[str]) -> FleetConfig:
    """Parse the arguments of `mien-edge fleet`.

    Raises ConfigError, or SystemExit with status 2 after jsonargparse has said what is wrong.
    """
    description = "Run several cameras, each in a process of its own, as a file lists them."
    return FleetConfig(**parse_settings(FleetConfig, "mien-edge fleet", description, arguments))
