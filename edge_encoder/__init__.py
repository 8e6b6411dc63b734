"""Camera device: capture, faces, analysis transform, payload, uplink."""

from mien.telemetry import forbid_telemetry

forbid_telemetry()
