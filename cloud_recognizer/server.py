"""The recognizer's wiring: what is made, in which order, and how it stops.

device ⇄ RecognitionServicer ⇄ DeviceStreams → Admission → Policy, before anything is taken in
                                    │ one of each
                               DeviceStream → Intake → Batcher → Recognizer (thread) → back
                                    │                          └→ Shadow (thread of its own)
                                    ├→ Hub → Fanout → Subscription → WatchRecognitions
                                    ├→ AuditLog, before anything is shown
                                    ├→ Archive → a folder of Parquet parts, where that is asked for
                                    ├→ Accuracy → AccuracyCollector; ReportLabels, Hub → Accuracy
                                    └→ LayerRequests → LivePage ← Hub, Figures, Reconstruction
folder → Repository → Catalogue, which all of them read; Prober → Intake, on a schedule
"""

import logging
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cloud_recognizer.access import Guard
from cloud_recognizer.accuracy.estimate import Accuracy
from cloud_recognizer.accuracy.metrics import AccuracyCollector
from cloud_recognizer.admission import Admission
from cloud_recognizer.archive.archive import Archive
from cloud_recognizer.audit import AuditLog
from cloud_recognizer.batcher import Batcher
from cloud_recognizer.bounds import Bounds
from cloud_recognizer.bundles.catalogue import Catalogue
from cloud_recognizer.bundles.probing import Prober
from cloud_recognizer.bundles.repository import LoadModel, Repository
from cloud_recognizer.bundles.service import BundleServicer
from cloud_recognizer.bundles.shadow import Shadow
from cloud_recognizer.config import CloudConfig
from cloud_recognizer.credits import CreditLedger
from cloud_recognizer.device_streams import DeviceStreams
from cloud_recognizer.grpc_server import grpc_server, health_told, stopped
from cloud_recognizer.health import Health
from cloud_recognizer.health_pages import health_pages
from cloud_recognizer.hub.opening import open_hub
from cloud_recognizer.intake import Intake
from cloud_recognizer.layer_requests import LayerRequests
from cloud_recognizer.listening import open_transport
from cloud_recognizer.live_page.figures import Figures
from cloud_recognizer.live_page.opening import live_page
from cloud_recognizer.live_page.sources import Sources
from cloud_recognizer.metrics import METRICS_CONNECTIONS, Metrics
from cloud_recognizer.model import ExpressionModel, RuntimeOptions
from cloud_recognizer.policy import Policy
from cloud_recognizer.rate_limit import RateLimits, RateSettings
from cloud_recognizer.recognizer import Job, Outcome, Recognizer
from cloud_recognizer.reconstruction import Reconstruction
from cloud_recognizer.servicer import RecognitionServicer
from mien.bitstream import Limits
from mien.metrics_endpoint import metrics_endpoint
from mien.signing import trusted_keys
from mien.tracing import open_tracing

if TYPE_CHECKING:  # needs mien[tracing]
    from opentelemetry.sdk.trace.export import SpanExporter

    from mien.spans import Tracing

_log = logging.getLogger(__name__)

# The part of max_age_s that chunks may take before streams get fewer credits.
PATIENCE: Final = 0.25


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
    hub.on_published(accuracy.remember)
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
    figures = Figures(models, metrics, accuracy)
    sources = Sources(hub, audit, figures, reconstruction, layers, streams.connected)
    checks = Health(metrics, transport.access, config.write_timeout_s)
    bounds = Bounds(config, metrics, transport.access)
    guards = (Guard(transport.access, metrics), bounds) if transport.access else (bounds,)
    bundles = BundleServicer(models, metrics, transport.access, config.write_timeout_s)
    server = grpc_server(config, guards, servicer, bundles, checks)
    prober = Prober(models, intake, ledger, repository.roll_back, metrics, config.probe_interval_s)
    keeping = archive.running() if archive is not None else nullcontext()
    async with hub, batcher, shadow.running(), keeping:
        port, token_port = transport.bind(server, config)
        with (
            audit,
            metrics_endpoint(
                *(metrics.registry, config.metrics_host, config.metrics_port),
                health_pages(checks),
                on_full=metrics.turned_away.labels(METRICS_CONNECTIONS).inc,
            ) as metrics_port,
        ):
            await server.start()
            pages = AsyncExitStack()  # left last, so that browsers are told that we stop
            try:
                page = await pages.enter_async_context(live_page(config, metrics, sources))
                async with (
                    health_told(models, checks),
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
                checks.stop()
                await stopped(server, streams, hub, config.drain_grace_s)
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


def _rates(config: CloudConfig) -> RateLimits:
    settings = RateSettings(
        config.device_chunks_per_s, config.device_faces_per_s, config.device_burst_s
    )
    return RateLimits(settings, config.max_sessions)
