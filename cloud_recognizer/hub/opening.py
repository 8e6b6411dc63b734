"""Which hub the settings ask for: in the process, or over NATS."""

from typing import Final

from cloud_recognizer.config import CloudConfig
from cloud_recognizer.hub.contract import Hub
from cloud_recognizer.hub.fanout import Fanout
from cloud_recognizer.hub.local_hub import LocalHub
from cloud_recognizer.hub.ring import Ring
from cloud_recognizer.metrics import Metrics
from mien.errors import ConfigError

# Seconds in which NATS brings to every recognizer what a watcher has seen at another one.
ARRIVAL_S: Final = 2.0
# Seconds that NATS may take to be there when the service starts.
NATS_START_S: Final = 30.0


def open_hub(config: CloudConfig, metrics: Metrics) -> Hub:
    """The hub that the settings ask for, to be entered. Raises ConfigError without nats-py."""
    ring = Ring(
        max_s=config.held_s, max_chunks=config.retention_chunks, max_bytes=config.retention_bytes
    )
    fanout = Fanout(
        metrics,
        ring,
        max_watchers=config.max_watchers,
        capacity=config.watcher_queue,
        arrival_s=ARRIVAL_S if config.nats else 0.0,
    )
    access = config.nats_access
    if access is None:
        metrics.hub_connected.set(1)
        return LocalHub(fanout)
    try:
        from cloud_recognizer.hub.nats_hub import NatsHub
        from cloud_recognizer.hub.nats_stream import StreamSettings
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"nats needs the package {error.name}: install mien's extra `nats`"
        ) from error
    settings = StreamSettings(
        config.nats_storage,
        config.nats_replicas,
        config.held_s,
        config.retention_chunks,
        config.retention_bytes,
    )
    window, start_s = config.publish_window, NATS_START_S
    return NatsHub(fanout, metrics, access, settings, window=window, start_s=start_s)
