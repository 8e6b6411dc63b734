"""Recognizer: decode, batch, classify, publish."""

from mien.telemetry import forbid_telemetry

forbid_telemetry()
