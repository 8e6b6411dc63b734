"""Where the README's figures come from: `python -m benchmarks NAME`."""

from mien.telemetry import forbid_telemetry

forbid_telemetry()
