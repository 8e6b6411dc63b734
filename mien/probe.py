"""The probe set of a bundle: what it must answer, on any machine, before it is put to use.

    faces          uint8 (P, 1, H, W)       drawn faces, no photographs
    symbols        int32 (P, C, h, w)       what the analysis transform made of them
    probabilities  float32 (P, expressions) what the classifier said
    payload        uint8 (B,)               the symbols coded, chunk after chunk
    payload_sizes  int32 (chunks,)

A payload names its bundle, and the bundle id depends on this file; so golden payloads are coded
under an id of their own, GOLDEN_ID.
"""

from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mien.bitstream import Box, EncodedFace
from mien.bundle import Bundle
from mien.codec import ChunkCodec
from mien.errors import BitstreamError, ManifestError, ProbeError
from mien.npz import read_npz, write_npz
from mien.plain_reader import PlainReader
from mien.reading import ReaderKind
from mien.tables import CdfTables

GOLDEN_ID = "0" * 64
_CHUNK_FACES = 8
_STEP_MS = 33
_ARRAYS = {
    "faces": ("|u1", 4),
    "symbols": ("<i4", 4),
    "probabilities": ("<f4", 2),
    "payload": ("|u1", 1),
    "payload_sizes": ("<i4", 1),
}


@dataclass(frozen=True, eq=False)
class Probe:
    """The arrays of probe.npz, the payloads cut apart."""

    faces: NDArray[np.uint8]
    symbols: NDArray[np.int32]
    probabilities: NDArray[np.float32]
    payloads: tuple[bytes, ...]

    def save(self, path: Path) -> None:
        """Write probe.npz; equal probes give equal bytes."""
        arrays = {
            "faces": self.faces,
            "symbols": self.symbols.astype("<i4"),
            "probabilities": self.probabilities.astype("<f4"),
            "payload": np.frombuffer(b"".join(self.payloads), np.uint8),
            "payload_sizes": np.array([len(payload) for payload in self.payloads], "<i4"),
        }
        path.write_bytes(write_npz(arrays))


def golden_payloads(
    tables: CdfTables, symbols: NDArray[np.int32], bundle_id: str = GOLDEN_ID
) -> tuple[bytes, ...]:
    """Code symbols, int32 (P, C, H, W), for a probe: eight faces a chunk, on tracks that move.

    Each chunk is of the next quality level, as `probe_levels` says. With a bundle's own id they are
    payloads that a recognizer takes for a device's.
    """
    codec = ChunkCodec(tables, bundle_id)
    levels = probe_levels(len(symbols), tables).tolist()
    faces = [
        EncodedFace(i * _STEP_MS, i // 5, Box(10 + 2 * i, 20 - i, 80 + i // 2, 90), latent, level)
        for i, (latent, level) in enumerate(zip(symbols, levels, strict=True))
    ]
    starts = range(0, len(faces), _CHUNK_FACES)
    return tuple(codec.encode(faces[start : start + _CHUNK_FACES]) for start in starts)


def probe_levels(count: int, tables: CdfTables) -> NDArray[np.int32]:
    """The quality level of each of so many probe faces, int32 (count,): a chunk each, in turn."""
    return (np.arange(count, dtype=np.int32) // _CHUNK_FACES) % tables.levels


def load_probe(bundle: Bundle) -> Probe:
    """Read a bundle's probe.npz. Raises BundleHashError and ManifestError."""
    arrays = read_npz(bundle.read("probe.npz"), _ARRAYS)
    image, latent = bundle.manifest.image, bundle.manifest.latent
    count = len(arrays["faces"])
    sizes = arrays["payload_sizes"].tolist()
    expected = {
        "faces": (count, image.channels, image.height, image.width),
        "symbols": (count, *latent.shape),
        "probabilities": (count, len(bundle.manifest.expressions)),
        "payload": (sum(sizes),),
    }
    for name, shape in expected.items():
        if arrays[name].shape != shape:
            raise ManifestError(f"probe.npz: {name} is {arrays[name].shape}, expected {shape}")
    if count < 1 or min(sizes, default=0) < 0:
        raise ManifestError("probe.npz holds no face, or a size below zero")
    ends = accumulate(sizes, initial=0)
    payload = arrays["payload"].tobytes()
    return Probe(
        arrays["faces"].astype(np.uint8),
        arrays["symbols"].astype(np.int32),
        arrays["probabilities"].astype(np.float32),
        tuple(payload[start:end] for start, end in pairwise(ends)),
    )


def check_payloads(bundle: Bundle, probe: Probe, reader: ReaderKind = PlainReader) -> None:
    """Decode the golden payloads and code them again. Raises ProbeError on any difference.

    reader: how to decode; that which will be used.
    """
    codec = ChunkCodec(bundle.tables, GOLDEN_ID, reader=reader)
    try:
        decoded = [face.symbols for payload in probe.payloads for face in codec.decode(payload)]
    except BitstreamError as error:
        raise ProbeError(f"a golden payload does not decode: {error}") from error
    if not np.array_equal(np.array(decoded, np.int32), probe.symbols):
        raise ProbeError("the golden payloads decode to other symbols than the probe's")
    if golden_payloads(bundle.tables, probe.symbols) != probe.payloads:
        raise ProbeError("the probe's symbols are coded to other bytes than the golden payloads")
