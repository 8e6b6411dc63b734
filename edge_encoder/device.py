"""The encoder's wiring: what is made, in which order, and how it stops.

Source → FaceEncoder (Detector, FaceTracker, FaceAligner, Analysis) → Chunker → Uplink ⇄ server
                                                                 │   Spool ◀──┘└→ ResultWriter
                                        BundleSwitch changes the bundle ─┘
"""

import asyncio
import logging
import math
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

import cv2

from edge_encoder.bundle_switch import BundleSwitch
from edge_encoder.camera import open_source
from edge_encoder.capture.events import CameraEvents
from edge_encoder.capture.frames import Source
from edge_encoder.capture.health import CameraHealth, Watcher
from edge_encoder.capture.reader import LiveSettings
from edge_encoder.capture.recording import RecordedSource
from edge_encoder.chunker import Chunker
from edge_encoder.config import EdgeConfig
from edge_encoder.detector import Detector, open_detector
from edge_encoder.dialling import Dialler, open_dialler
from edge_encoder.encoder_cache import fetch_encoder
from edge_encoder.faces import FaceEncoder
from edge_encoder.layering import Layering
from edge_encoder.memory import return_freed_memory
from edge_encoder.metrics import Metrics
from edge_encoder.pacing import PaceSettings, Pacing, level_bytes
from edge_encoder.pipeline import Pipeline
from edge_encoder.rate_control import RateSettings
from edge_encoder.results import ResultWriter, open_results
from edge_encoder.servers import Servers
from edge_encoder.spool.store import Spool, SpoolSettings, open_spool
from edge_encoder.uplink import Uplink, UplinkSettings
from mien.bundle import Bundle, load_bundle
from mien.declaration import ContextOfUse, LegalException
from mien.errors import BundleError
from mien.exit_codes import ExitCode
from mien.messages.upward import Hello
from mien.metrics_endpoint import metrics_endpoint
from mien.signing import trusted_keys
from mien.tracing import open_tracing

if TYPE_CHECKING:  # needs mien[tracing]
    from opentelemetry.sdk.trace.export import SpanExporter

    from mien.spans import Tracing

_log = logging.getLogger(__name__)

Fetch = Callable[[str | None], Awaitable[Bundle]]

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


async def run(config: EdgeConfig, exporter: "SpanExporter | None" = None) -> ExitCode:
    """Stream the source until it ends or a signal asks to stop; a second one ends at once.

    The summary is written in any case once streaming has begun. exporter: where spans go, instead
    of to the collector. Raises MienError.
    """
    # A second thread would only fight the uplink for the core of a small device.
    cv2.setNumThreads(1)
    metrics = Metrics()
    async with AsyncExitStack() as stack:
        results = stack.enter_context(open_results(config.results))
        metrics_port = stack.enter_context(
            metrics_endpoint(metrics.registry, config.metrics_host, config.metrics_port)
        )
        if metrics_port is not None:
            results.write("metrics", metrics_port=metrics_port)
        tracing = stack.enter_context(_tracing(config, metrics, exporter))
        detector = _detector(config)
        events = CameraEvents(results, metrics, CameraHealth(config.expected_fps))
        source = stack.enter_context(_source(config, events.watcher))
        if source.live:
            metrics.lag_limit.set(config.max_lag_s)
            await stack.enter_async_context(events.regularly())
        servers = Servers(config.servers, config.device)
        dialler = open_dialler(config, metrics)
        fetch = _fetch(config, source, servers, metrics, dialler.beside())
        bundle = await fetch(None)
        pipeline = _pipeline(config, source, detector, bundle, results, metrics, tracing)
        return_freed_memory()
        spool = _spool(config, stack, metrics)
        hello = _hello(config, bundle, spool)
        results.write(
            "started",
            source=source.name,
            device_id=hello.device_id,
            epoch=hello.epoch,
            bundle_id=bundle.bundle_id,
            detector=detector.name,
            metrics_port=metrics_port,
        )
        try:
            switch = BundleSwitch(fetch, pipeline.change, bundle.bundle_id, metrics)
            async with Uplink(
                *(servers, _settings(config, source), hello, pipeline.on_result, metrics),
                on_bundle=switch.want if hello.fetches_bundles else lambda _: None,
                on_layers=pipeline.chunker.request_layers,
                spool=spool,
                on_late_result=pipeline.on_late_result,
                dialler=dialler,
            ) as uplink:
                await uplink.ready()
                received = _on_signals(pipeline.stop)
                async with switch.running():
                    await pipeline.run(uplink)
        finally:
            used = pipeline.bundle.bundle_id
            results.write("summary", **pipeline.figures.summary(source.name, used, metrics))
            if spool is not None:
                _log.info("%d faces wait in %s", spool.total.faces, config.spool)
    return ExitCode.INTERRUPTED if signal.SIGINT in received else ExitCode.OK


def _detector(config: EdgeConfig) -> Detector:
    return open_detector(
        config.detector_model,
        config.detector_sha256,
        min_face_px=config.min_face_px,
        max_side_px=config.detect_max_side_px,
    )


def _source(config: EdgeConfig, watcher: Watcher) -> Source:
    live = LiveSettings(
        config.open_timeout_s,
        config.read_timeout_s,
        config.stall_s,
        config.frozen_s,
        config.source_give_up_s,
    )
    source = open_source(
        config.source, live, pace=config.pace, rounds=config.rounds, watcher=watcher
    )
    return source if config.record is None else RecordedSource(source, config.record)


def _tracing(
    config: EdgeConfig, metrics: Metrics, exporter: "SpanExporter | None"
) -> AbstractContextManager["Tracing | None"]:
    return open_tracing(
        config.tracing_endpoint,
        config.tracing_sample,
        "mien-edge",
        chunks=lambda _, count: metrics.traced.inc(count),
        spans=lambda outcome, count: metrics.spans.labels(outcome).inc(count),
        exporter=exporter,
    )


def _fetch(
    config: EdgeConfig, source: Source, servers: Servers, metrics: Metrics, dialler: Dialler
) -> Callable[[str | None], Awaitable[Bundle]]:
    """What gets a bundle by its id, without one that to begin with; it counts what it refuses."""
    cache = Path(config.cache).expanduser()
    keys = trusted_keys(config.bundle_keys)

    async def fetch(bundle_id: str | None) -> Bundle:
        try:
            if bundle_id is None and config.bundle is not None:
                return load_bundle(config.bundle, keys=keys)
            return await fetch_encoder(
                *(servers, cache, config.give_up_s, bundle_id, keys, dialler),
                goes_on=_goes_on(config, source),
            )
        except BundleError as error:
            metrics.refused_bundles.labels(error.code).inc()
            raise

    return fetch


def _spool(config: EdgeConfig, stack: AsyncExitStack, metrics: Metrics) -> Spool | None:
    if config.spool is None:
        return None
    settings = SpoolSettings(
        config.spool.expanduser(),
        round(config.spool_mb * 1_000_000),
        config.spool_hours * 3600,
        config.spool_key,
    )
    spool = stack.enter_context(open_spool(settings, metrics))
    _log.info("%d faces of earlier runs wait in %s", spool.total.faces, config.spool)
    return spool


def _hello(config: EdgeConfig, bundle: Bundle, spool: Spool | None) -> Hello:
    now_ms = time.time_ns() // 1_000_000
    return Hello(
        device_id=config.device,
        # Grows with every start, as an epoch must; the spool knows also when the clock does not.
        epoch=spool.next_epoch(now_ms) if spool is not None else now_ms,
        epoch_start_unix_ms=now_ms,
        bundle_ids=(bundle.bundle_id,),
        purpose=config.purpose,
        notice=config.notice,
        context=ContextOfUse.of("context", config.context),
        exception=LegalException.of("exception", config.exception),
        max_latency_ms=config.max_latency_ms,
        fetches_bundles=config.bundle is None,
    )


def _pipeline(
    config: EdgeConfig,
    source: Source,
    detector: Detector,
    bundle: Bundle,
    results: ResultWriter,
    metrics: Metrics,
    tracing: "Tracing | None",
) -> Pipeline:
    encoder = FaceEncoder(
        detector,
        bundle,
        detect_every=1 if source.stills else config.detect_every,
        max_faces=config.max_faces,
    )
    level = config.quality_level
    layering = Layering(
        config.layers, bundle, lambda code: metrics.layer_failures.labels(code).inc()
    )
    chunker = Chunker(
        *(bundle.codec(), config.chunk_faces, config.chunk_seconds, level, layering),
        strength=config.symbol_choice,
        tracing=tracing,
    )
    pacing = None
    if source.live and config.rate_control:
        pacing = Pacing(_paces(config), level_bytes(bundle, level), chunker, encoder, metrics)
    traced = tracing is not None
    return Pipeline(
        *(source, encoder, chunker, results, bundle, metrics, pacing, traced),
        max_chunk_s=config.max_chunk_s,
    )


def _paces(config: EdgeConfig) -> PaceSettings:
    return PaceSettings(
        config.chunk_faces,
        config.chunk_seconds,
        config.max_chunk_s,
        config.min_faces_per_s,
        RateSettings(config.max_lag_s),
        config.quality_level,
    )


def _goes_on(config: EdgeConfig, source: Source) -> bool:
    """Whether the run starts and lasts without a server: a camera whose chunks wait on disk."""
    return config.spool is not None and source.live


def _settings(config: EdgeConfig, source: Source) -> UplinkSettings:
    return UplinkSettings(
        config.queue_chunks,
        math.inf if _goes_on(config, source) else config.give_up_s,
        config.welcome_timeout_s,
        config.answer_timeout_s,
        config.keepalive_s,
        config.spool_chunks_per_s,
    )


def _on_signals(stop: Callable[[], None]) -> list[int]:
    """Call `stop` at the first signal; returns the list that signals are noted in."""
    loop = asyncio.get_running_loop()
    received: list[int] = []

    def on_signal(number: int) -> None:
        received.append(number)
        stop()
        for other in _SIGNALS:
            loop.remove_signal_handler(other)

    for number in _SIGNALS:
        loop.add_signal_handler(number, on_signal, number)
    return received
