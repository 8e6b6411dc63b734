"""What is in a payload or in a bundle, in words for people."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mien.bitstream import HEADER_BYTES, EncodedFace, Limits, bundle_tag, payload_tag
from mien.bundle import MANIFEST, Bundle, BundleRepository, load_bundle
from mien.errors import ChecksumError, SourceError, UnknownBundleError
from mien.range_coder import TOTAL
from mien.stir import AFRESH, GIVEN, STILL, UNKNOWN
from mien.tables import CdfTables
from mien.track_latents import Told, TrackLatents

_HOW = {
    UNKNOWN: "first of its track",
    STILL: "as the one before",
    AFRESH: "told afresh",
    **dict.fromkeys(GIVEN, "told by the one before"),
}


def describe(path: Path, bundles: BundleRepository | None = None) -> str:
    """Describe a payload file, or a bundle by its folder or manifest.

    bundles: where the faces of a payload are decoded with; without, only its header is read.
    Raises SourceError when nothing is there, BitstreamError for a payload that cannot be decoded,
    UnknownBundleError when its bundle is not among bundles, BundleError for a damaged bundle.
    """
    if path.is_dir():
        return describe_bundle(path)
    if path.name == MANIFEST:
        return describe_bundle(path.parent)
    try:
        with path.open("rb") as stream:
            payload = stream.read(Limits().max_chunk_bytes + 1)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error
    return describe_payload(payload, bundles)


def describe_payload(payload: bytes, bundles: BundleRepository | None = None) -> str:
    """Describe the bytes of one payload; raises as `describe` does."""
    tag = payload_tag(payload)
    lines = [
        f"chunk of {len(payload)} bytes: header {HEADER_BYTES}, body {len(payload) - HEADER_BYTES}",
        f"  coded with a bundle whose id starts {tag:x}",
    ]
    if bundles is None:
        lines.append("  give its bundle to check the checksum and see the faces")
        return "\n".join(lines)
    bundle, faces = _decode(payload, bundles)
    lines += [
        f"  bundle {bundle.manifest.name}, {bundle.bundle_id}",
        f"  checksum holds; {_count(len(faces), 'face')}, "
        f"{len(payload) / len(faces):.1f} bytes each, at quality level {faces[0].level} "
        f"of 0..{bundle.tables.levels - 1}",
    ]
    latents = TrackLatents(bundle.tables, faces[0].level)
    for index, face in enumerate(faces):
        told = latents.tell(face.track_id, face.symbols)
        bits = 0.0 if told.stir == STILL else bundle.tables.ideal_bits(face.symbols, told.rows)
        lines.append(
            f"  face {index}: {face.time_ms} ms, track {face.track_id}, "
            f"box {face.box.width}×{face.box.height} at ({face.box.x}, {face.box.y}), "
            f"{_how(told)}, latent {bits / 8:.1f} bytes, "
            f"{np.count_nonzero(face.symbols)} of {face.symbols.size} symbols not zero"
        )
    return "\n".join(lines)


def describe_bundle(folder: Path) -> str:
    """Describe the bundle in a folder, whose files are verified. Raises BundleError."""
    manifest = load_bundle(folder).manifest
    there = [name for name in manifest.files if (folder / name).exists()]
    bundle = load_bundle(folder, there)
    image, latent = manifest.image, manifest.latent
    levels = range(bundle.tables.levels)
    expected = ", ".join(f"{expected_bits(bundle.tables, level) / 8:.1f}" for level in levels)
    lines = [
        f"bundle {manifest.name}, made {manifest.created}",
        f"  id {bundle.bundle_id}",
        f"  face {image.channels}×{image.height}×{image.width} "
        f"-> latent {latent.channels}×{latent.height}×{latent.width}, "
        f"{expected} bytes a face told afresh as the tables expect, by quality level",
        f"  expressions: {', '.join(manifest.expressions)}",
        f"  {_count(len(there), 'file')}, verified:",
    ]
    for name in sorted(manifest.files):
        entry = manifest.files[name]
        state = f"SHA-256 {entry.sha256[:12]}…" if name in there else "not here"
        lines.append(f"    {name:<16} {entry.bytes:>9,} bytes  {state}")
    if manifest.figures:
        lines += ["  measured:", *_figures(manifest.figures, "    ")]
    return "\n".join(lines)


def expected_bits(tables: CdfTables, level: int) -> float:
    """Return the entropy of a level's rows, in bits a face told afresh; the mean of its priors."""
    first, end = tables.first_row(level, 0), tables.first_row(level, tables.priors)
    places = slice(tables.starts[first], tables.starts[end - 1] + tables.sizes[end - 1] + 1)
    counts = np.diff(tables.cdf[places].astype(np.float64))
    shares = counts[counts > 0] / TOTAL  # between two rows it falls
    return float(-np.sum(shares * np.log2(shares))) / tables.priors


def _how(told: Told) -> str:
    if told.stir in GIVEN and told.prior is not None:
        return _HOW[AFRESH]
    return _HOW[told.stir]


def _decode(payload: bytes, bundles: BundleRepository) -> tuple[Bundle, tuple[EncodedFace, ...]]:
    tag = payload_tag(payload)
    candidates = bundles.with_tag(tag)
    for index, bundle in enumerate(candidates, 1):
        try:
            return bundle, bundle.codec().decode(payload)
        except ChecksumError:
            if index == len(candidates):
                raise
    known = ", ".join(f"{bundle_tag(b.bundle_id):x} ({b.manifest.name})" for b in bundles.bundles)
    raise UnknownBundleError(f"no bundle given has an id that starts {tag:x}; there are: {known}")


def _figures(figures: Mapping[str, Any], indent: str) -> list[str]:
    lines = []
    for name, value in figures.items():
        if isinstance(value, dict):
            lines += [f"{indent}{name}:", *_figures(value, indent + "  ")]
        elif isinstance(value, list):
            lines += [f"{indent}{name}:", *_rows(value, indent + "  ")]
        else:
            lines.append(f"{indent}{name}: {value}")
    return lines


def _rows(rows: Sequence[Any], indent: str) -> list[str]:
    """A line for each, so that what is said of quality levels can be compared."""
    return [f"{indent}{index}: {_row(row)}" for index, row in enumerate(rows)]


def _row(row: Any) -> str:
    if isinstance(row, float):
        return f"{row:.4g}"
    if isinstance(row, dict):
        return ", ".join(f"{name} {_row(value)}" for name, value in row.items())
    return str(row)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
