"""The gRPC server: what it offers and how, when it says that it is well, and how it is stopped."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from cloud_recognizer.access import RECOGNITION
from cloud_recognizer.bounds import connection_streams
from cloud_recognizer.bundles.catalogue import Catalogue
from cloud_recognizer.bundles.service import BundleServicer
from cloud_recognizer.config import CloudConfig
from cloud_recognizer.device_streams import DeviceStreams
from cloud_recognizer.health import Health, Status
from cloud_recognizer.hub.contract import Hub
from cloud_recognizer.servicer import RecognitionServicer
from mien.background import background
from mien.v1 import bundle_pb2
from mien.v1.bundle_pb2_grpc import add_BundleServiceServicer_to_server
from mien.v1.recognition_pb2_grpc import add_RecognitionServiceServicer_to_server

_log = logging.getLogger(__name__)

BUNDLES: Final = bundle_pb2.DESCRIPTOR.services_by_name["BundleService"].full_name
# Seconds that calls other than device streams get to end once those are gone.
CLOSE_GRACE_S: Final = 1.0
OPTIONS: Final = (
    ("grpc.so_reuseport", 0),  # a port that is taken is an error, not shared
    ("grpc.max_receive_message_length", 8 << 20),  # 256 payloads of 16 KiB, and room
    # A probe of the bandwidth asks a device for a packet of 90 bytes a chunk, and finds nothing.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.keepalive_time_ms", 30_000),  # a dead device's stream ends within 40 s
    ("grpc.keepalive_timeout_ms", 10_000),
    # For one that takes bytes and answers none; a minute otherwise, whatever is said above.
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
)


def grpc_server(
    config: CloudConfig,
    guards: Sequence[grpc.aio.ServerInterceptor],
    recognition: RecognitionServicer,
    bundles: BundleServicer,
    checks: Health,
) -> grpc.aio.Server:
    """A server of all services, bound to no port yet. guards: what each call passes first."""
    most = ("grpc.max_concurrent_streams", connection_streams(config))
    server = grpc.aio.server(interceptors=guards, options=(*OPTIONS, most))
    add_RecognitionServiceServicer_to_server(recognition, server)
    add_BundleServiceServicer_to_server(bundles, server)
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    reflection.enable_server_reflection(
        (RECOGNITION, BUNDLES, health.SERVICE_NAME, reflection.SERVICE_NAME), server
    )
    return server


@asynccontextmanager
async def health_told(models: Catalogue, checks: Health) -> AsyncIterator[None]:
    """Say SERVING while the context lasts and there is a bundle whose probe holds."""
    changed = asyncio.Event()
    models.on_change(changed.set)

    def say() -> None:
        for name in ("", RECOGNITION, BUNDLES):
            checks.say(name, Status.SERVING if models.sound else Status.NOT_SERVING)

    async def follow() -> None:
        while await changed.wait():
            changed.clear()
            say()

    say()
    async with background(follow(), "health"):
        yield


async def stopped(
    server: grpc.aio.Server, streams: DeviceStreams, hub: Hub, grace_s: float
) -> None:
    """Drain the devices within grace_s, then stop; calls that are left get CLOSE_GRACE_S."""
    _log.info("draining for at most %g s", grace_s)
    try:
        async with asyncio.timeout(grace_s):
            await streams.drain()
    except TimeoutError:
        _log.warning("some devices have not left in time; their streams are cut")
    hub.close()
    await server.stop(CLOSE_GRACE_S)
