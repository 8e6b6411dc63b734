"""The page's figures: what this recognizer has counted since it started, and no device."""

from prometheus_client import Counter, Gauge

from cloud_recognizer.accuracy.estimate import Accuracy
from cloud_recognizer.bundles.catalogue import Catalogue
from cloud_recognizer.live_page.jpeg import SOURCE, jpeg_bytes_a_face
from cloud_recognizer.metrics import Metrics
from cloud_recognizer.model import ExpressionModel
from mien.cli.palette import colour


class Figures:
    """Read on the event loop; a reading costs as much as there are bundles and groups."""

    def __init__(self, models: Catalogue, metrics: Metrics, accuracy: Accuracy) -> None:
        self._models = models
        self._metrics = metrics
        self._accuracy = accuracy

    def _expressions(self) -> dict[str, str]:
        # Those of every bundle in memory, with the colour that each is drawn in.
        names = [name for model in self._models.in_memory.values() for name in model.expressions]
        return {name: colour(name) for name in dict.fromkeys(names)}

    def now(self) -> dict[str, object]:
        """What there is to say now, as JSON takes it."""
        faces = _by_label(self._metrics.bundle_faces)
        payload_bytes = _by_label(self._metrics.bundle_payload_bytes)
        return {
            "expressions": self._expressions(),
            "streams": _value(self._metrics.streams),
            "bundles": [
                _bundle(model, faces.get(bundle_id, 0), payload_bytes.get(bundle_id, 0))
                for bundle_id, model in self._models.in_memory.items()
            ],
            "jpeg_source": SOURCE,
            "accuracy": self._estimates(),
            "accuracy_window_s": self._accuracy.window_s,
        }

    def _estimates(self) -> list[dict[str, object]]:
        rows = []
        for row in self._accuracy.figures():
            model = self._models.in_memory.get(row.bundle_id)
            if model is not None and row.window.estimate is not None:
                rows.append(
                    {
                        "bundle": model.bundle.manifest.name,
                        "group": row.group,
                        "faces": row.window.faces,
                        "estimate": row.window.estimate,
                        "calibrated": model.bundle.manifest.calibration is not None,
                    }
                )
        return rows


def _bundle(model: ExpressionModel, faces: float, payload_bytes: float) -> dict[str, object]:
    return {
        "bundle_id": model.bundle_id,
        "name": model.bundle.manifest.name,
        "faces": round(faces),
        "payload_bytes": round(payload_bytes),
        "jpeg_bytes_a_face": jpeg_bytes_a_face(model.bundle.manifest.image),
    }


def _by_label(counter: Counter) -> dict[str, float]:
    """The values of a counter with one label."""
    return {
        next(iter(sample.labels.values())): sample.value
        for family in counter.collect()
        for sample in family.samples
        if sample.name.endswith("_total")
    }


def _value(gauge: Gauge) -> int:
    return round(next(iter(gauge.collect())).samples[0].value)
