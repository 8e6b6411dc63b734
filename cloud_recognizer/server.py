"""The recognizer's wiring: what is made, in which order, and how it stops.

device ⇄ RecognitionServicer ⇄ DeviceStream → Batcher → Recognizer (thread) → back
                                    └→ Hub → Fanout → Subscription → WatchRecognitions
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from cloud_recognizer.batcher import Batcher
from cloud_recognizer.bundle_service import BundleServicer
from cloud_recognizer.config import CloudConfig
from cloud_recognizer.fanout import Fanout
from cloud_recognizer.hub import Hub
from cloud_recognizer.local_hub import LocalHub
from cloud_recognizer.metrics import Metrics
from cloud_recognizer.model import Models, RuntimeOptions, load_models
from cloud_recognizer.recognizer import Job, Outcome, Recognizer
from cloud_recognizer.ring import Ring
from cloud_recognizer.servicer import RecognitionServicer
from mien.bitstream import Limits
from mien.errors import ConfigError
from mien.metrics_endpoint import metrics_endpoint
from mien.v1 import bundle_pb2, recognition_pb2
from mien.v1.bundle_pb2_grpc import add_BundleServiceServicer_to_server
from mien.v1.recognition_pb2_grpc import add_RecognitionServiceServicer_to_server

_log = logging.getLogger(__name__)

LoadModels = Callable[[Path, RuntimeOptions, Limits], Models]

RECOGNITION: Final = recognition_pb2.DESCRIPTOR.services_by_name["RecognitionService"].full_name
BUNDLES: Final = bundle_pb2.DESCRIPTOR.services_by_name["BundleService"].full_name
# Seconds that calls other than device streams get to end once those are gone.
CLOSE_GRACE_S: Final = 1.0
# Seconds in which NATS brings to every recognizer what a watcher has seen at another one.
ARRIVAL_S: Final = 2.0
# Seconds that NATS may take to be there when the service starts.
NATS_START_S: Final = 30.0
OPTIONS: Final = (
    ("grpc.so_reuseport", 0),  # a port that is taken is an error, not shared
    ("grpc.max_receive_message_length", 8 << 20),  # 256 payloads of 16 KiB, and room
    ("grpc.keepalive_time_ms", 30_000),  # a dead device's stream ends within 40 s
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
)


@dataclass(frozen=True)
class Serving:
    """A recognizer that answers: where, and with what."""

    port: int
    metrics_port: int | None
    bundle_id: str
    providers: tuple[str, ...]


@asynccontextmanager
async def serving(
    config: CloudConfig, metrics: Metrics, load: LoadModels = load_models
) -> AsyncIterator[Serving]:
    """Serve while the context lasts; on leaving, drain within `drain_grace_s`.

    Nothing listens before every model is proven and warm and the hub is there. Raises BundleError,
    ConfigError for a port that cannot be bound, UnavailableError without NATS.
    """
    options = RuntimeOptions(config.provider, config.threads, config.allow_reconstruction)
    models = await asyncio.to_thread(load, config.bundles, options, Limits())
    await asyncio.to_thread(_prove, models, metrics)
    recognizer = Recognizer(models, metrics)
    hub = open_hub(config, metrics)
    batcher: Batcher[Job, Outcome] = Batcher(
        recognizer.recognise,
        metrics,
        capacity=config.queue_chunks,
        max_batch=config.max_batch_chunks,
        max_wait_s=config.max_batch_wait_s,
        workers=config.workers,
    )
    servicer = RecognitionServicer(config, models, recognizer, batcher, hub, metrics)
    checks = health.aio.HealthServicer()
    server = grpc.aio.server(options=OPTIONS)
    add_RecognitionServiceServicer_to_server(servicer, server)
    add_BundleServiceServicer_to_server(
        BundleServicer(models, metrics, config.write_timeout_s), server
    )
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    reflection.enable_server_reflection(
        (RECOGNITION, BUNDLES, health.SERVICE_NAME, reflection.SERVICE_NAME), server
    )
    async with hub, batcher:
        port = _bind(server, config)
        with metrics_endpoint(metrics.registry, config.host, config.metrics_port) as metrics_port:
            await server.start()
            for name in ("", RECOGNITION, BUNDLES):
                await checks.set(name, health_pb2.HealthCheckResponse.SERVING)
            try:
                yield Serving(
                    port,
                    metrics_port,
                    models.preferred.bundle_id,
                    tuple(dict.fromkeys(model.provider for model in models)),
                )
            finally:
                await checks.enter_graceful_shutdown()
                await _stop(server, servicer, hub, config.drain_grace_s)


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
    if not config.nats:
        metrics.hub_connected.set(1)
        return LocalHub(fanout)
    try:
        from cloud_recognizer.nats_hub import NatsHub
        from cloud_recognizer.nats_stream import StreamSettings
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
    servers = config.nats.split(",")
    window, start_s = config.publish_window, NATS_START_S
    return NatsHub(fanout, metrics, servers, settings, window=window, start_s=start_s)


def _prove(models: Models, metrics: Metrics) -> None:
    for model in models:
        difference = model.prove()
        metrics.probe_difference.labels(model.bundle_id).set(difference)
        metrics.model_info.labels(model.bundle_id, model.provider).set(1)


def _bind(server: grpc.aio.Server, config: CloudConfig) -> int:
    try:
        return server.add_insecure_port(f"{config.host}:{config.port}")
    except RuntimeError as error:
        raise ConfigError(
            f"port {config.port} of {config.host} cannot be bound: is it taken? ({error})"
        ) from error


async def _stop(
    server: grpc.aio.Server, servicer: RecognitionServicer, hub: Hub, grace_s: float
) -> None:
    _log.info("draining for at most %g s", grace_s)
    try:
        async with asyncio.timeout(grace_s):
            await servicer.drain()
    except TimeoutError:
        _log.warning("some devices have not left in time; their streams are cut")
    hub.close()
    await server.stop(CLOSE_GRACE_S)
