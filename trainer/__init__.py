"""Offline training of codec and classifier, evaluation and export."""

from mien.telemetry import forbid_telemetry

forbid_telemetry()
