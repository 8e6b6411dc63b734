"""What a service says of itself and what the system says of it: metrics, memory, processor time."""

import math
import os
import urllib.request
from collections.abc import Iterable
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

# (name, upper bound of a bucket or "") → value
Samples = dict[tuple[str, str], float]


def scrape(url: str) -> Samples:
    """A service's metrics."""
    page = urllib.request.urlopen(url).read().decode()  # noqa: S310  # our own child
    return {
        (sample.name, sample.labels.get("le", "")): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def grown(before: Samples, after: Samples, name: str) -> float:
    """By how much a counter has grown."""
    return after[(name, "")] - before[(name, "")]


def grown_buckets(before: Samples, after: Samples, name: str) -> list[tuple[float, float]]:
    """A histogram's cumulative buckets of the time between: upper bound and count."""
    bounds = [bound for key, bound in after if key == f"{name}_bucket"]
    keys = [(f"{name}_bucket", bound) for bound in bounds]
    return [(float(key[1]), after[key] - before[key]) for key in keys]


def quantile(buckets: Iterable[tuple[float, float]], share: float) -> float:
    """A quantile of a cumulative histogram, linear inside its bucket, as PromQL has it."""
    ordered = sorted(buckets)
    wanted = share * ordered[-1][1]
    lower, below = 0.0, 0.0
    for bound, count in ordered:
        if count >= wanted:
            if math.isinf(bound) or count == below:
                return lower
            return lower + (bound - lower) * (wanted - below) / (count - below)
        lower, below = bound, count
    return lower


def cpu_s(pid: int) -> float:
    """Processor seconds that a running process has used. Linux only."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int:
    """Memory that a running process has resident. Linux only."""
    return _status(pid, "VmRSS")


def peak_bytes(pid: int) -> int:
    """The most memory that a running process has had resident at a time. Linux only."""
    return _status(pid, "VmHWM")


def _status(pid: int, name: str) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition(f"{name}:")[2].split()[0]) * 1024
