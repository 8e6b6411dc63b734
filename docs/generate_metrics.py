"""Write docs/metrics.md: every metric of both services, as the code registers it.

    make metrics

Fails where a label has nothing below that bounds its values: say what does, in BOUNDS. A tuple
lists all values there can be; a text says what the values are and what limits their number.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from cloud_recognizer import metrics as cloud
from cloud_recognizer.accuracy.device_groups import CALLS, MAX_GROUPS, OTHER
from cloud_recognizer.accuracy.metrics import OF, accuracy_families
from cloud_recognizer.accuracy.sliding_window import BUNDLE, FIRST_WINDOW
from cloud_recognizer.bundles import catalogue
from cloud_recognizer.policy import RULES
from edge_encoder import metrics as edge
from edge_encoder.capture.health import CameraHealth
from edge_encoder.fleet import metrics as fleet
from edge_encoder.fleet.cameras_file import MAX_CAMERAS
from mien.declaration import ContextOfUse
from mien.errors import EncodeError, LimitError, SymbolRangeError
from mien.messages.labels import LabelStatus
from mien.messages.results import ItemStatus
from mien.tracing import JOINED, LIMITED, MALFORMED, SPANS

PAGE: Final = Path(__file__).parent / "metrics.md"

_ERROR: Final = "a code of [errors.md](errors.md)"
_BUNDLE: Final = "ids of bundles in memory, at most `--max_bundles`"
_CAMERA: Final = f"names in the cameras file, at most {MAX_CAMERAS}"

_PAGE_REFUSALS: Final = ", ".join(f"`{reason}`" for reason in cloud.PAGE_REFUSALS)
_CONTEXTS: Final = tuple(context.word for context in ContextOfUse)
_GROUP: Final = f"names of `--device_groups`, at most {MAX_GROUPS}, `{OTHER}` and `{CALLS}`"

BOUNDS: Final[dict[tuple[str, str], tuple[str, ...] | str]] = {
    ("mien_cloud_chunks", "status"): tuple(
        status.name.lower() for status in (ItemStatus.RESULT, ItemStatus.REJECTED)
    ),
    ("mien_cloud_faces", "rpc"): cloud.RPCS,
    ("mien_cloud_recognitions", "expression"): "expressions of the bundles in memory",
    ("mien_cloud_rejected_chunks", "code"): _ERROR,
    ("mien_cloud_dropped", "reason"): cloud.REASONS,
    ("mien_cloud_rpc_errors", "code"): _ERROR,
    ("mien_cloud_turned_away", "bound"): cloud.BOUNDS,
    ("mien_cloud_rate_limited", "how"): cloud.RATE_LIMITS,
    (
        "mien_cloud_page_refusals",
        "code",
    ): f"{_ERROR}, or {_PAGE_REFUSALS}",
    ("mien_cloud_admitted_streams", "context"): _CONTEXTS,
    ("mien_cloud_policy_refusals", "rule"): RULES,
    ("mien_cloud_policy_refusals", "context"): _CONTEXTS,
    ("mien_cloud_audit_entries", "outcome"): cloud.AUDIT_OUTCOMES,
    ("mien_cloud_archive_deleted_parts", "rule"): cloud.ARCHIVE_RULES,
    ("mien_cloud_traced_chunks", "outcome"): (JOINED, LIMITED, MALFORMED),
    ("mien_cloud_spans", "outcome"): SPANS,
    ("mien_edge_spans", "outcome"): SPANS,
    ("mien_cloud_model_info", "bundle_id"): _BUNDLE,
    ("mien_cloud_bundle_faces", "bundle_id"): _BUNDLE,
    ("mien_cloud_bundle_payload_bytes", "bundle_id"): _BUNDLE,
    ("mien_cloud_model_info", "provider"): "ONNX Runtime's word for where it runs",
    ("mien_cloud_probe_difference", "bundle_id"): _BUNDLE,
    ("mien_cloud_bundle_role", "bundle_id"): _BUNDLE,
    ("mien_cloud_bundle_role", "role"): (catalogue.PROMOTED, catalogue.CANARY, catalogue.SHADOW),
    ("mien_cloud_refused_bundles", "code"): f"{_ERROR}, or `{cloud.TOO_MANY}`",
    ("mien_cloud_probes", "outcome"): cloud.PROBE_OUTCOMES,
    ("mien_cloud_labels", "outcome"): tuple(status.name.lower() for status in LabelStatus),
    **{
        (family.name, label): bound
        for family in accuracy_families()
        for label, bound in (("bundle_id", _BUNDLE), ("group", _GROUP))
    },
    ("mien_cloud_drift_psi", "of"): OF,
    ("mien_cloud_drift_psi", "reference"): (BUNDLE, FIRST_WINDOW),
    ("mien_edge_dropped", "reason"): (
        *edge.REASONS,
        # Faces that no chunk can carry.
        *(EncodeError.code, SymbolRangeError.code, LimitError.code),
    ),
    ("mien_edge_reconnects", "reason"): edge.RECONNECTS,
    ("mien_edge_rejected_faces", "code"): _ERROR,
    ("mien_edge_layer_failures", "code"): _ERROR,
    ("mien_edge_refused_bundles", "code"): _ERROR,
    ("mien_edge_camera_losses", "code"): edge.LOSSES,
    ("mien_edge_fleet_camera_up", "camera"): _CAMERA,
    ("mien_edge_fleet_configs", "outcome"): (fleet.APPLIED, fleet.REFUSED),
    ("mien_edge_fleet_restarts", "camera"): _CAMERA,
    ("mien_edge_fleet_restarts", "reason"): fleet.REASONS,
    ("mien_edge_fleet_dropped_lines", "camera"): _CAMERA,
    ("mien_edge_fleet_failed_scrapes", "camera"): _CAMERA,
}

# The last of a name's words that stands here says its unit; what has none is counted.
_UNITS: Final = {
    **dict.fromkeys(("seconds", "bytes", "bits"), ""),
    **dict.fromkeys(("share", "difference", "health", "estimate", "measured"), "0 to 1"),
    "psi": "0 and more",
    **dict.fromkeys(
        ("up", "newest", "connected", "delivering", "failing", "info", "role"), "0 or 1"
    ),
    "fps": "frames a second",
    **dict.fromkeys(("streams", "watchers", "faces", "chunks", "recognitions", "frames"), ""),
    **dict.fromkeys(("probes", "bundles", "lines", "batches", "parts", "spans"), ""),
}

_HEAD: Final = """\
# Metrics

Written by `make metrics` out of the code; a test fails when it is not what the code says. Beside
these, both services have the `process_*` and `python_*` metrics of their Prometheus client. Names
are as they are scraped; a histogram `x` is scraped as `x_bucket`, `x_sum` and `x_count`, and every
counter and histogram also as `…_created`, the Unix time at which it began. No label holds a device,
a person or a track. What the figures mean together stands in [the recording
rules](../deploy/prometheus/rules/recording.yml), what to do about them in
[troubleshooting.md](troubleshooting.md).
"""


class AccuracyNames(Collector):
    """What `AccuracyCollector` gives once faces were seen, without a value."""

    def collect(self) -> Iterable[Metric]:
        """Every family."""
        return accuracy_families()


def services() -> Iterator[tuple[str, str, CollectorRegistry]]:
    """Title, introduction and registry of each, with nothing left out that comes later."""
    service = cloud.Metrics()
    service.registry.register(AccuracyNames())
    yield "Recognizer", "`mien-cloud serve --metrics_port 9464`.", service.registry
    device = edge.Metrics()
    device.show_health(CameraHealth())
    yield (
        "Device",
        "`mien-edge run --metrics_port 9465`. Those of a camera (`mien_edge_camera_…`) are there "
        "with a live source only.\nUnder `mien-edge fleet` each has the label `camera`, too: "
        f"{_CAMERA}.",
        device.registry,
    )
    yield (
        "Fleet",
        "`mien-edge fleet --cameras FILE --metrics_port 9465`, beside those of every device.",
        fleet.FleetMetrics().registry,
    )


def families(registry: CollectorRegistry) -> list[Metric]:
    """Those of ours, in order of their names."""
    found = (family for family in registry.collect() if family.name.startswith("mien_"))
    return sorted(found, key=lambda family: family.name)


def label_names(registry: CollectorRegistry, family: Metric) -> tuple[str, ...]:
    """As they were registered, also where no value has come yet."""
    if (own := getattr(family, "_labelnames", None)) is not None:  # made by a collector of ours
        return tuple(own)
    # The registry tells labels only through samples, and a family may have none so far.
    collector = registry._names_to_collectors[family.name]
    return tuple(collector._labelnames)  # type: ignore[attr-defined]


def sample_names(family: Metric) -> tuple[str, ...]:
    """What it is called when it is scraped."""
    endings = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
    return tuple(family.name + ending for ending in endings.get(family.type, ("",)))


def bound(family: str, label: str) -> tuple[str, ...] | str:
    """What bounds a label. Raises SystemExit where nothing is said."""
    if (family, label) not in BOUNDS:
        raise SystemExit(
            f"{family} has the label {label}, and nothing says what bounds it: "
            f"add it to BOUNDS in {__file__}"
        )
    return BOUNDS[family, label]


def unit(name: str) -> str:
    """Seconds, bytes, …: by the name's words."""
    for word in reversed(name.split("_")):
        if word in _UNITS:
            return _UNITS[word] or word
    return "count"


def _labels(registry: CollectorRegistry, family: Metric) -> str:
    shown = []
    for label in label_names(registry, family):
        values = bound(family.name, label)
        listed = values if isinstance(values, str) else ", ".join(f"`{v}`" for v in values)
        shown.append(f"`{label}`: {listed}")
    if family.type == "histogram":
        steps = [s.labels["le"] for s in family.samples if s.name.endswith("_bucket")]
        shown.append(f"`le`: {', '.join(steps)}")
    return "; ".join(shown) or "–"


def page() -> str:
    """The whole page."""
    parts = [_HEAD]
    for title, introduction, registry in services():
        parts.append(f"\n## {title}\n\n{introduction}\n\n")
        parts.append("| metric | type | unit | what | labels |\n|---|---|---|---|---|\n")
        for family in families(registry):
            name = sample_names(family)[0].removesuffix("_bucket")
            what = (family.documentation, _labels(registry, family))
            cells = (f"`{name}`", family.type, unit(family.name), *what)
            parts.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |\n")
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
