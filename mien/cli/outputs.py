"""What a demo leaves behind: summary.json, timeline.png, annotated.mp4, and some lines of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from mien.cli.pictures import Pictures
from mien.cli.results import FaceResult, summary_document, write_summary


def write_outputs(
    out: Path, summary: Mapping[str, Any], faces: Sequence[FaceResult], pictures: Pictures
) -> str:
    """Write the files into `out`; returns in words what they hold.

    Raises SourceError when the source cannot be read again, VideoError.
    """
    from mien.cli.annotate import annotate
    from mien.cli.timeline import draw_timeline

    document = summary_document(summary, faces)
    written = [out / "summary.json", out / "timeline.png"]
    write_summary(out / "summary.json", document)
    draw_timeline(out / "timeline.png", faces, _headline(document))
    if document["frames"]:
        with pictures.read() as frames:
            seen = islice(frames, document["frames"])
            annotate(seen, out / "annotated.mp4", faces, pictures.fps)
        written.append(out / "annotated.mp4")
    return f"{in_words(document)}\nwritten   {', '.join(map(str, written))}"


def in_words(document: Mapping[str, Any]) -> str:
    """The figures of summary.json as a person reads them, each with what it counts."""
    if not document["faces_sent"]:
        return f"{document['clip']}: no face was found in {document['frames']} frames"
    rows = (
        (
            "payload",
            _figure(document["payload_bytes_per_face"], "bytes a face"),
            "whole coded chunks, with header, checksum, time, track and box",
        ),
        (
            "wire",
            _figure(document["wire_bytes_per_face"], "bytes a face"),
            "up through the TCP socket, HTTP/2 framing and Hello included, TCP and IP headers not",
        ),
        (
            "edge",
            _figure(document["edge_ms_per_face"], "ms a face"),
            "processor time of detection, tracking, alignment, analysis and coding",
        ),
    )
    lines = [f"{name:<9} {figure}: {counted}" for name, figure, counted in rows]
    return "\n".join([_headline(document), *lines])


def _headline(document: Mapping[str, Any]) -> str:
    return (
        f"{document['clip']}: {document['faces_recognised']} of {document['faces_sent']} faces "
        f"recognised in {document['frames']} frames"
    )


def _figure(value: float | None, unit: str) -> str:
    return "not measured" if value is None else f"{value:.1f} {unit}"
