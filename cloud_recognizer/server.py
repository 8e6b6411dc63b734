"""The recognizer's wiring: what is made, in which order, and how it stops.

device ⇄ RecognitionServicer ⇄ DeviceStreams → Admission → Policy, before anything is taken in
                                    │ one of each
                               DeviceStream → Intake → Batcher → Recognizer (thread) → back
                                    │                          └→ Shadow (thread of its own)
                                    ├→ Hub → Fanout → Subscription → WatchRecognitions
                                    ├→ AuditLog, before anything is shown
                                    ├→ Archive → a folder of Parquet parts, where that is asked for
                                    ├→ Accuracy → AccuracyCollector; ReportLabels → Accuracy
                                    └→ LayerRequests → LivePage ← Hub, Figures, Reconstruction
folder → Repository → Catalogue, which all of them read; Prober → Intake, on a schedule
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from cloud_recognizer.access import Guard
from cloud_recognizer.accuracy.estimate import Accuracy
from cloud_recognizer.accuracy.metrics import AccuracyCollector
from cloud_recognizer.admission import Admission
from cloud_recognizer.archive.archive import Archive
from cloud_recognizer.audit import AuditLog
from cloud_recognizer.batcher import Batcher
from cloud_recognizer.bundles.catalogue import Catalogue
from cloud_recognizer.bundles.probing import Prober
from cloud_recognizer.bundles.repository import LoadModel, Repository
from cloud_recognizer.bundles.service import BundleServicer
from cloud_recognizer.bundles.shadow import Shadow
from cloud_recognizer.config import CloudConfig
from cloud_recognizer.credits import CreditLedger
from cloud_recognizer.device_streams import DeviceStreams
from cloud_recognizer.hub.contract import Hub
from cloud_recognizer.hub.opening import open_hub
from cloud_recognizer.intake import Intake
from cloud_recognizer.layer_requests import LayerRequests
from cloud_recognizer.listening import open_transport
from cloud_recognizer.live_page.figures import Figures
from cloud_recognizer.live_page.opening import live_page
from cloud_recognizer.live_page.sources import Sources
from cloud_recognizer.metrics import Metrics
from cloud_recognizer.model import ExpressionModel, RuntimeOptions
from cloud_recognizer.policy import Policy
from cloud_recognizer.rate_limit import RateLimits, RateSettings
from cloud_recognizer.recognizer import Job, Outcome, Recognizer
from cloud_recognizer.reconstruction import Reconstruction
from cloud_recognizer.servicer import RecognitionServicer
from mien.background import background
from mien.bitstream import Limits
from mien.metrics_endpoint import metrics_endpoint
from mien.signing import trusted_keys
from mien.tracing import open_tracing
from mien.v1 import bundle_pb2, recognition_pb2
from mien.v1.bundle_pb2_grpc import add_BundleServiceServicer_to_server
from mien.v1.recognition_pb2_grpc import add_RecognitionServiceServicer_to_server

if TYPE_CHECKING:  # needs mien[tracing]
    from opentelemetry.sdk.trace.export import SpanExporter

    from mien.spans import Tracing

_log = logging.getLogger(__name__)

RECOGNITION: Final = recognition_pb2.DESCRIPTOR.services_by_name["RecognitionService"].full_name
BUNDLES: Final = bundle_pb2.DESCRIPTOR.services_by_name["BundleService"].full_name
# What an orchestrator asks the health service for before it starts a process again: a recognizer
# whose models fail their probe serves nobody, but another start would not mend them.
LIVENESS: Final = "liveness"
# The part of max_age_s that chunks may take before streams get fewer credits.
PATIENCE: Final = 0.25
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


@dataclass(frozen=True)
class Serving:
    """A recognizer that answers: where, and with what."""

    port: int
    token_port: int | None
    metrics_port: int | None
    live_page: str | None
    bundle_id: str
    providers: tuple[str, ...]


@asynccontextmanager
async def serving(
    config: CloudConfig,
    metrics: Metrics,
    load: LoadModel = ExpressionModel,
    exporter: "SpanExporter | None" = None,
) -> AsyncIterator[Serving]:
    """Serve while the context lasts; on leaving, drain within `drain_grace_s`.

    exporter: where spans go, instead of to the collector.
    Nothing listens before the models that are there are proven and warm and the hub is there.
    Raises BundleError where there is none, ConfigError for a port that cannot be bound and for a
    policy that cannot be read or forbids a setting, UnavailableError without NATS.
    """
    with _tracing(config, metrics, exporter) as tracing:
        async with _serving(config, metrics, load, tracing) as served:
            yield served


@asynccontextmanager
async def _serving(
    config: CloudConfig, metrics: Metrics, load: LoadModel, tracing: "Tracing | None"
) -> AsyncIterator[Serving]:
    transport = open_transport(config, metrics)
    policy = Policy.load(config.policy) if config.policy else Policy.lenient()
    policy.check(config)
    options = RuntimeOptions(config.provider, config.threads, config.allow_reconstruction)
    limits = Limits()
    models = Catalogue(limits, metrics)
    repository = Repository(
        *(config.bundles, models, metrics, options),
        max_bundles=config.max_bundles,
        load=load,
        keys=trusted_keys(config.bundle_keys),
    )
    await repository.open()
    shadow = Shadow(models, metrics)
    recognizer = Recognizer(models, metrics, shadow.offer)
    hub = open_hub(config, metrics)
    batcher: Batcher[Job, Outcome] = Batcher(
        recognizer.recognise,
        metrics,
        max_chunks=config.queue_chunks,
        max_bytes=config.queue_bytes,
        max_batch_faces=config.max_batch_faces,
        max_wait_s=config.max_batch_wait_s,
        workers=config.workers,
    )
    ledger = _ledger(config, metrics)
    intake = Intake(recognizer, batcher, limits)
    accuracy = Accuracy(config, models, metrics)
    reconstruction = Reconstruction(recognizer, metrics, allowed=config.allow_reconstruction)
    layers = LayerRequests()
    audit = _audit(config, metrics)
    archive = _archive(config, models, metrics)
    metrics.registry.register(AccuracyCollector(accuracy))
    admission = Admission(policy, metrics)
    streams = DeviceStreams(
        *(config, models, intake, ledger, hub, metrics, accuracy, admission, layers),
        access=transport.access,
        rates=_rates(config),
        tracing=tracing,
        archive=archive,
    )
    servicer = RecognitionServicer(
        *(config, streams, reconstruction, intake, ledger, hub, metrics, accuracy, admission),
        *(audit, layers),
        access=transport.access,
    )
    sources = Sources(hub, audit, Figures(models, metrics, accuracy), reconstruction, layers)
    checks = health.aio.HealthServicer()
    guards = (Guard(transport.access, metrics),) if transport.access else ()
    server = grpc.aio.server(interceptors=guards, options=OPTIONS)
    add_RecognitionServiceServicer_to_server(servicer, server)
    add_BundleServiceServicer_to_server(
        BundleServicer(models, metrics, config.write_timeout_s), server
    )
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    reflection.enable_server_reflection(
        (RECOGNITION, BUNDLES, health.SERVICE_NAME, reflection.SERVICE_NAME), server
    )
    prober = Prober(models, intake, ledger, repository.roll_back, metrics, config.probe_interval_s)
    keeping = archive.running() if archive is not None else nullcontext()
    async with hub, batcher, shadow.running(), keeping:
        port, token_port = transport.bind(server, config)
        with (
            audit,
            metrics_endpoint(metrics.registry, config.host, config.metrics_port) as metrics_port,
        ):
            await server.start()
            pages = AsyncExitStack()  # left last, so that browsers are told that we stop
            try:
                page = await pages.enter_async_context(live_page(config, metrics, sources))
                async with (
                    _health(models, checks),
                    repository.watched(config.bundles_poll_s),
                    prober.running(),
                    accuracy.running(),
                    transport.followed(),
                    audit.running(),
                ):
                    yield Serving(
                        port,
                        token_port,
                        metrics_port,
                        page,
                        models.promoted.bundle_id,
                        tuple(dict.fromkeys(model.provider for model in models)),
                    )
            finally:
                await checks.enter_graceful_shutdown()
                await _stop(server, streams, hub, config.drain_grace_s)
                await pages.aclose()


def _tracing(
    config: CloudConfig, metrics: Metrics, exporter: "SpanExporter | None"
) -> AbstractContextManager["Tracing | None"]:
    return open_tracing(
        config.tracing_endpoint,
        config.tracing_sample,
        "mien-cloud",
        chunks=lambda outcome, count: metrics.traced.labels(outcome).inc(count),
        spans=lambda outcome, count: metrics.spans.labels(outcome).inc(count),
        exporter=exporter,
    )


def _archive(config: CloudConfig, models: Catalogue, metrics: Metrics) -> Archive | None:
    if config.archive is None or config.archive_days is None:
        return None
    _log.warning("payloads, personal data, are kept in %s", config.archive)
    return Archive(
        config.archive,
        models,
        metrics,
        max_age_s=config.archive_days * 86_400,
        max_bytes=round(config.archive_mb * 1_000_000),
    )


def _audit(config: CloudConfig, metrics: Metrics) -> AuditLog:
    return AuditLog(
        config.audit_log,
        metrics,
        required=config.audit_required,
        max_bytes=round(config.audit_mb * 1_000_000),
        files=config.audit_files,
        max_age_s=config.audit_days * 86_400,
    )


def _ledger(config: CloudConfig, metrics: Metrics) -> CreditLedger:
    ledger = CreditLedger(
        places=config.stream_chunks,
        max_streams=config.max_streams,
        most=config.credits,
        call_places=config.max_recognize_chunks,
        patience_s=config.max_age_s * PATIENCE,
    )
    metrics.credits.set_function(lambda: ledger.outstanding)
    metrics.credit_window.set_function(lambda: ledger.window)
    return ledger


@asynccontextmanager
async def _health(models: Catalogue, checks: health.aio.HealthServicer) -> AsyncIterator[None]:
    """Say SERVING while the context lasts and there is a bundle whose probe holds.

    LIVENESS is SERVING for as long as this process takes calls.
    """
    changed = asyncio.Event()
    models.on_change(changed.set)

    async def say() -> None:
        status = health_pb2.HealthCheckResponse
        for name in ("", RECOGNITION, BUNDLES):
            await checks.set(name, status.SERVING if models.sound else status.NOT_SERVING)

    async def follow() -> None:
        while await changed.wait():
            changed.clear()
            await say()

    await say()
    await checks.set(LIVENESS, health_pb2.HealthCheckResponse.SERVING)
    async with background(follow(), "health"):
        yield


def _rates(config: CloudConfig) -> RateLimits:
    settings = RateSettings(
        config.device_chunks_per_s, config.device_faces_per_s, config.device_burst_s
    )
    return RateLimits(settings, config.max_sessions)


async def _stop(server: grpc.aio.Server, streams: DeviceStreams, hub: Hub, grace_s: float) -> None:
    _log.info("draining for at most %g s", grace_s)
    try:
        async with asyncio.timeout(grace_s):
            await streams.drain()
    except TimeoutError:
        _log.warning("some devices have not left in time; their streams are cut")
    hub.close()
    await server.stop(CLOSE_GRACE_S)
