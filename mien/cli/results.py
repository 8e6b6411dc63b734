"""What `mien-edge run --results -` prints, a JSON object a line, and what the demo makes of it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class FaceResult:
    """One recognised face, and the chunk that it shared."""

    frame: int
    t_s: float
    track_id: int
    box: tuple[int, int, int, int]  # x, y, width, height, px of the source frame
    expression: str
    probability: float
    probabilities: dict[str, float]  # in the bundle's order
    chunk_bytes: int
    chunk_faces: int

    @classmethod
    def parse(cls, event: Mapping[str, Any]) -> "FaceResult":
        """From a "recognition" line. Raises KeyError or ValueError for one of another shape."""
        x, y, width, height = (int(value) for value in event["box"])
        return cls(
            frame=int(event["frame"]),
            t_s=float(event["t_s"]),
            track_id=int(event["track_id"]),
            box=(x, y, width, height),
            expression=str(event["expression"]),
            probability=float(event["probability"]),
            probabilities={str(k): float(v) for k, v in event["probabilities"].items()},
            chunk_bytes=int(event["chunk_bytes"]),
            chunk_faces=int(event["chunk_faces"]),
        )

    @property
    def payload_bytes(self) -> float:
        """Its share of the whole coded chunk: header, checksum, latents, times, tracks, boxes."""
        return self.chunk_bytes / self.chunk_faces


# The figures of summary.json in its order; "recognitions" follows them.
SUMMARY_FIGURES = (
    "clip",
    "frames",
    "faces_sent",
    "faces_recognised",
    "payload_bytes_per_face",
    "wire_bytes_per_face",
    "edge_ms_per_face",
    "bundle_id",
)
RECOGNITION_FIELDS = (
    "frame",
    "t_s",
    "track_id",
    "box",
    "expression",
    "probability",
    "probabilities",
)


def summary_document(summary: Mapping[str, Any], faces: Sequence[FaceResult]) -> dict[str, Any]:
    """summary.json: exactly the keys above; a figure that nothing could be measured for is null."""
    document: dict[str, Any] = {key: summary.get(key) for key in SUMMARY_FIGURES}
    if Path(str(document["clip"])).exists():
        # Where a file lies says nothing about the run, and something about the machine.
        document["clip"] = Path(document["clip"]).name
    document["recognitions"] = [
        {field: getattr(face, field) for field in RECOGNITION_FIELDS} for face in in_order(faces)
    ]
    return document


def in_order(faces: Sequence[FaceResult]) -> list[FaceResult]:
    """By frame, then track: results of several chunks may arrive in any order."""
    return sorted(faces, key=lambda face: (face.frame, face.track_id))


def write_summary(path: Path, document: Mapping[str, Any]) -> None:
    """Write summary.json, whole or not at all."""
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)
