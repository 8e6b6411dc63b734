"""Each alert with series that make it fire, and with the nearest that do not.

Series are promtool's: `start+step x count`, one value a minute. They get the labels job and
instance, "bad" or "good"; both stand in one test, and only "bad" may fire.
"""

from dataclasses import dataclass
from typing import Final

from cloud_recognizer.metrics import REASONS

STEADY: Final = "0+600x60"  # ten a second
STILL: Final = "5x60"


@dataclass(frozen=True)
class Case:
    """One alert.

    bad, good: series without the target's labels → values. silent_m, firing_m: minutes at which
    bad does not fire yet, and at which it does.
    """

    alert: str
    bad: dict[str, str]
    good: dict[str, str]
    silent_m: int
    firing_m: int


def latency(slow: str, fast: str) -> dict[str, str]:
    """Chunks that took up to 2.5 s, and up to 0.1 s."""
    name = "mien_cloud_chunk_seconds_bucket"
    return {f'{name}{{le="0.1"}}': fast, f'{name}{{le="2.5"}}': slow, f'{name}{{le="+Inf"}}': slow}


def settled(rejected: str) -> dict[str, str]:
    """Ten results a second, and rejected chunks."""
    name = "mien_cloud_chunks_total"
    return {f'{name}{{status="result"}}': STEADY, f'{name}{{status="rejected"}}': rejected}


def dropped(reason: str, values: str) -> dict[str, str]:
    """What the recognizer drops; the other reasons stand at zero, as it shows them."""
    all_reasons = dict.fromkeys(REASONS, "0x60") | {reason: values}
    return {f'mien_cloud_dropped_total{{reason="{name}"}}': v for name, v in all_reasons.items()}


def probes(**outcomes: str) -> dict[str, str]:
    """Golden probes by outcome."""
    name = "mien_cloud_probes_total"
    return {f'{name}{{outcome="{outcome}"}}': values for outcome, values in outcomes.items()}


def faces_lost(reason: str, values: str) -> dict[str, str]:
    """What a device drops of ten faces a second."""
    return {
        "mien_edge_faces_total": STEADY,
        f'mien_edge_dropped_total{{reason="{reason}"}}': values,
    }


def answered(recognised: str, connected: int = 1) -> dict[str, str]:
    """A device that encodes ten faces a second."""
    return {
        "mien_edge_faces_total": STEADY,
        "mien_edge_recognised_faces_total": recognised,
        "mien_edge_connected": f"{connected}x60",
    }


def spool(size: int, limit: int) -> dict[str, str]:
    """Bytes on disk, and how many there may be."""
    return {"mien_edge_spool_bytes": f"{size}x60", "mien_edge_spool_limit_bytes": f"{limit}x60"}


def refused(code: str) -> dict[str, str]:
    """One call a minute that ends with a code."""
    return {f'mien_cloud_rpc_errors_total{{code="{code}"}}': "0+1x60"}


def estimated(values: str, faces: int = 500) -> dict[str, str]:
    """Accuracy without labels, from so many faces."""
    labels = '{bundle_id="b",group="lobby"}'
    return {
        f"mien_cloud_accuracy_estimate{labels}": values,
        f"mien_cloud_accuracy_window_faces{labels}": f"{faces}x300",
    }


def psi(of: str, reference: str, values: str) -> dict[str, str]:
    """How far the faces have moved."""
    labels = f'bundle_id="b",group="lobby",of="{of}",reference="{reference}"'
    return {f"mien_cloud_drift_psi{{{labels}}}": values}


def cost(end: str, face_bytes: str) -> dict[str, str]:
    """A face a second, of so many bytes."""
    faces = f"mien_{end}_faces_total" + ('{rpc="StreamFaces"}' if end == "cloud" else "")
    return {faces: "0+60x300", f"mien_{end}_payload_bytes_total": face_bytes}


def lag(seconds: str, connected: int = 1) -> dict[str, str]:
    """A camera that may lag for two seconds."""
    return {
        "mien_edge_lag_seconds": seconds,
        "mien_edge_lag_limit_seconds": "2x60",
        "mien_edge_connected": f"{connected}x60",
    }


CLOUD: Final = (
    Case(
        "MienAccuracyFallen", estimated("0.8x119 0.69x180"), estimated("0.8x119 0.71x180"), 148, 152
    ),
    Case(
        "MienAccuracyFallen",
        estimated("0.8x119 0.69x180"),
        estimated("0.8x119 0.69x180", faces=499),
        148,
        152,
    ),
    Case("MienAccuracyLow", estimated("0.49x60"), estimated("0.5x60"), 29, 31),
    Case("MienAccuracyLow", estimated("0.49x60"), estimated("0.3x60", faces=499), 29, 31),
    Case(
        "MienFacesDrift",
        psi("confidence", "bundle", "0.9x119 1.2x180"),
        psi("confidence", "bundle", "0.9x300"),  # no dataset has a fleet's visitors
        178,
        181,
    ),
    Case(
        "MienFacesDrift",
        psi("expression", "first_window", "0.26x120"),
        psi("confidence", "first_window", "0.25x120"),
        59,
        61,
    ),
    Case(
        "MienFacesDrift",
        psi("expression", "bundle", "0.9x119 1.2x180"),
        psi("expression", "bundle", "0.9x119 1.1x180"),
        178,
        181,
    ),
    Case("MienBitrateHigh", cost("cloud", "0+3960x60"), cost("cloud", "0+3840x60"), 29, 33),
    Case("MienRecognizerDown", {"up": "1x4 0x60"}, {"up": "1x60"}, 5, 6),
    Case("MienProbeFailing", probes(failed="0x4 1x60"), probes(failed="7x60", held="0+1x60"), 5, 6),
    Case(
        "MienProbeSkipped",
        probes(skipped="0+1x60", held="3x60"),
        probes(skipped="0+1x60", held="0+1x60"),
        3,
        8,
    ),
    Case(
        "MienProbeSkipped",
        probes(skipped="0+1x60"),
        probes(failed="0+1x60"),
        3,
        8,
    ),
    Case(
        "MienBundleRolledBack",
        {"mien_cloud_rollbacks_total": "0x4 1x60"},
        {"mien_cloud_rollbacks_total": "1x60"},
        5,
        6,
    ),
    Case(
        "MienPolicyRefuses",
        {'mien_cloud_policy_refusals_total{rule="context",context="home"}': "0x4 1x60"},
        {'mien_cloud_policy_refusals_total{rule="context",context="home"}': "1x60"},
        5,
        6,
    ),
    Case(
        "MienAuditLost",
        {
            'mien_cloud_audit_entries_total{outcome="lost"}': "0x4 1x60",
            'mien_cloud_audit_entries_total{outcome="written"}': STEADY,
        },
        {
            'mien_cloud_audit_entries_total{outcome="lost"}': "0x60",
            'mien_cloud_audit_entries_total{outcome="written"}': STEADY,
        },
        5,
        6,
    ),
    Case(
        "MienHubDisconnected",
        {"mien_cloud_hub_connected": "1x4 0x60"},
        {"mien_cloud_hub_connected": "1x4 0 1x60"},
        6,
        7,
    ),
    Case(
        "MienNoFaces",
        {'mien_cloud_faces_total{rpc="StreamFaces"}': STILL, "mien_cloud_streams": "3x60"},
        {'mien_cloud_faces_total{rpc="StreamFaces"}': STILL, "mien_cloud_streams": "0x60"},
        29,
        33,
    ),
    Case("MienLatencyHigh", latency(STEADY, "0+590x60"), latency(STEADY, "0+599x60"), 9, 13),
    Case(
        "MienChunksTooLate",
        settled("0+15x60") | dropped("too_late", "0+15x60"),
        settled("0+15x60") | dropped("duplicate", "0+60x60"),
        4,
        8,
    ),
    Case(
        "MienCreditsShort",
        {"mien_cloud_credit_window": "1x60"},
        {"mien_cloud_credit_window": "2x60"},
        9,
        11,
    ),
    Case(
        "MienRecognizerFull",
        {'mien_cloud_rpc_errors_total{code="overloaded"}': "0+5x60"},
        {
            'mien_cloud_rpc_errors_total{code="overloaded"}': "5x60",
            'mien_cloud_rpc_errors_total{code="protocol"}': "0+5x60",
        },
        9,
        13,
    ),
    Case(
        "MienChunksDropped",
        settled("0x60") | dropped("queue_full", "0+14x60"),
        settled("0x60") | dropped("duplicate", "0+60x60"),
        9,
        13,
    ),
    Case(
        "MienWatcherSlow",
        dropped("watcher_slow", "0+1x60"),
        dropped("shadow_full", "0+1x60"),
        9,
        13,
    ),
    Case("MienChunksRejected", settled("0+60x60"), settled("0+20x60"), 9, 13),
    Case("MienCallersRefused", refused("wrong_role"), refused("protocol"), 9, 13),
    Case("MienCallersRefused", refused("unauthenticated"), refused("overloaded"), 9, 13),
    Case(
        "MienDevicesLimited",
        {'mien_cloud_rate_limited_total{how="credits_withheld"}': "0+1x60"},
        {'mien_cloud_rate_limited_total{how="credits_withheld"}': "7x60"},
        29,
        33,
    ),
)

EDGE: Final = (
    Case(
        "MienDeviceBitrateHigh",
        cost("edge", "0+420x119 50400+1440x180"),  # 7 bytes, then 24
        cost("edge", "0+420x119 50400+1140x180"),  # then 19: a face alone in its chunk
        148,
        156,
    ),
    Case(
        "MienDeviceBitrateHigh",
        cost("edge", "0+420x119 50400+1440x180"),
        cost("edge", "0+600x119 72000+1440x180"),  # 10 bytes, then 24
        148,
        156,
    ),
    Case("MienEdgeLags", lag("3x60"), lag("3 3 3 0.1 " * 15), 9, 11),
    Case("MienEdgeLags", lag("3x60"), lag("0+60x60", connected=0), 9, 11),
    Case("MienEdgeDown", {"up": "1x4 0x60"}, {"up": "1x60"}, 6, 7),
    Case(
        "MienEdgeDisconnected",
        {"mien_edge_connected": "1x4 0x60"},
        {"mien_edge_connected": "1x4 0 1x60"},
        6,
        7,
    ),
    Case("MienEdgeUnanswered", answered(STILL), answered(STILL, connected=0), 9, 13),
    Case(
        "MienEdgeDropsFaces",
        faces_lost("unconfirmed", "0+4x60") | faces_lost("uplink_full", "0+4x60"),
        faces_lost("max_faces", "0+60x60"),
        9,
        13,
    ),
    Case("MienSpoolFilling", spool(81, 100), spool(80, 100), 9, 10),
    Case(
        "MienSpoolFailing",
        {"mien_edge_spool_failing": "0x4 1x60"},
        {"mien_edge_spool_failing": "0x4 1 0x60"},
        6,
        7,
    ),
    Case(
        "MienSpoolDamaged",
        {'mien_edge_dropped_total{reason="spool_damaged"}': "0x4 2x60"},
        {'mien_edge_dropped_total{reason="spool_full"}': "0x4 2x60"},
        5,
        6,
    ),
    Case(
        "MienCameraUnhealthy",
        {"mien_edge_camera_health": "0.79x60"},
        {"mien_edge_camera_health": "0.8x60"},
        9,
        10,
    ),
    Case(
        "MienCameraSilent",
        {"mien_edge_camera_delivering": "1x4 0x60"},
        {"mien_edge_camera_delivering": "1x4 0 1x60"},
        6,
        7,
    ),
    Case(
        "MienCameraFrozen",
        {'mien_edge_camera_losses_total{code="source_frozen"}': "0x4 1x60"},
        {'mien_edge_camera_losses_total{code="source_ended"}': "0x4 1x60"},
        5,
        6,
    ),
    Case(
        "MienFleetConfigRefused",
        {"mien_edge_fleet_config_is_newest": "1x4 0x60"},
        {"mien_edge_fleet_config_is_newest": "1x60"},
        5,
        6,
    ),
    Case(
        "MienCameraProcessDown",
        {'mien_edge_fleet_camera_up{camera="yard"}': "1x4 0x60"},
        {'mien_edge_fleet_camera_up{camera="yard"}': "1x4 0 1x60"},
        6,
        7,
    ),
    Case(
        "MienCameraProcessRestarts",
        {
            'mien_edge_fleet_restarts_total{camera="yard",reason="signal"}': "0+1x60",
            'mien_edge_fleet_restarts_total{camera="yard",reason="failure"}': "0x60",
        },
        {'mien_edge_fleet_restarts_total{camera="yard",reason="signal"}': "0x4 3x60"},
        4,
        5,
    ),
    *(
        Case(
            alert,
            # promtool's clock begins at 0: a week and ten minutes ahead, and eight days.
            {f"mien_{end}_certificate_expiry_timestamp_seconds": "605400x60"},
            {f"mien_{end}_certificate_expiry_timestamp_seconds": "691200x60"},
            14,
            17,
        )
        for alert, end in (
            ("MienCertificateExpires", "cloud"),
            ("MienDeviceCertificateExpires", "edge"),
        )
    ),
    *(
        Case(
            alert,
            {f"mien_{end}_certificate_refusals_total": "0x4 1+1x60"},
            {f"mien_{end}_certificate_refusals_total": "3x60"},
            8,
            11,
        )
        for alert, end in (
            ("MienCertificateRefused", "cloud"),
            ("MienDeviceCertificateRefused", "edge"),
        )
    ),
)
