"""What the services can be scraped for: the catalogue behind docs/metrics.md, by sample name."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]
# What Prometheus itself adds to what it scrapes.
TARGET_LABELS = frozenset({"job", "instance"})


@dataclass(frozen=True)
class Sample:
    """Labels, Prometheus's own included, and of those with listed values which these are."""

    labels: frozenset[str]
    values: dict[str, tuple[str, ...]]


def generator() -> ModuleType:
    """docs/generate_metrics.py, which is a script and in no package."""
    path = ROOT / "docs" / "generate_metrics.py"
    spec = importlib.util.spec_from_file_location("generate_metrics", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def scraped_samples() -> dict[str, Sample]:
    """Sample name → its labels, of both services and the fleet."""
    catalogue = generator()
    found = {"up": Sample(TARGET_LABELS, {"job": ("mien-cloud", "mien-edge")})}
    for _, _, registry in catalogue.services():
        for family in catalogue.families(registry):
            own = catalogue.label_names(registry, family)
            bounds = {label: catalogue.bound(family.name, label) for label in own}
            listed = {label: b for label, b in bounds.items() if not isinstance(b, str)}
            for name in catalogue.sample_names(family):
                labels = TARGET_LABELS | set(own)
                labels |= {"le"} if name.endswith("_bucket") else set()
                labels |= {"camera"} if name.startswith("mien_edge_") else set()
                found[name] = Sample(frozenset(labels), listed)
    return found
