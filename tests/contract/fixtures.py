"""The golden files: what chunks and a manifest are in bytes, agreed once and for all.

    tables.npz      integer CDFs as a bundle has them
    chunks.json     bundle id, and for each chunk its faces and its payload
    layer.npz       the same for the first and for the second enhancement layer
    layers.json     of some chunks the faces' enhancements, what they stand for, and the layers
    manifest.json   a manifest; its id is in chunks.json as the bundle id

`python -m tests.contract.regenerate` writes them anew, which is right only when the format is
meant to change: with the version, the changelog and a decision record.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien.bitstream import Box, EncodedFace

FOLDER = Path(__file__).with_name("golden")
TABLES, CHUNKS, MANIFEST = (FOLDER / n for n in ("tables.npz", "chunks.json", "manifest.json"))
LAYER_TABLES, LAYERS = FOLDER / "layer.npz", FOLDER / "layers.json"

Enhancement = NDArray[np.int32] | None


@dataclass(frozen=True)
class GoldenLayers:
    """The layers of a chunk with that payload. Of each face symbols and, in half steps, what they
    stand for: int32 (E, H, W), None where it has none."""

    payload: bytes
    enhancements: list[Enhancement]
    values: list[Enhancement]
    layers: list[bytes]


def read_chunks() -> list[tuple[tuple[EncodedFace, ...], bytes]]:
    """Return the faces and the payload of each golden chunk."""
    document = json.loads(CHUNKS.read_text())
    return [
        (
            tuple(_face(face, document["shape"]) for face in chunk["faces"]),
            bytes.fromhex(chunk["payload"]),
        )
        for chunk in document["chunks"]
    ]


def read_bundle_id() -> str:
    """Return the id that the golden chunks are coded under."""
    return str(json.loads(CHUNKS.read_text())["bundle_id"])


def chunks_document(
    bundle_id: str, shape: tuple[int, int, int], chunks: list[tuple[list[EncodedFace], bytes]]
) -> str:
    """Return chunks.json."""
    document = {
        "bundle_id": bundle_id,
        "shape": shape,
        "chunks": [
            {"faces": [_plain(face) for face in faces], "payload": payload.hex()}
            for faces, payload in chunks
        ],
    }
    return json.dumps(document, indent=1) + "\n"


def read_layers() -> list[GoldenLayers]:
    """Return the golden layers."""
    document = json.loads(LAYERS.read_text())

    def numbers(faces: list[str | None]) -> list[Enhancement]:
        return [
            None if f is None else np.array(f.split(), np.int32).reshape(document["shape"])
            for f in faces
        ]

    return [
        GoldenLayers(
            bytes.fromhex(chunk["payload"]),
            numbers(chunk["symbols"]),
            numbers(chunk["values"]),
            [bytes.fromhex(layer) for layer in chunk["layers"]],
        )
        for chunk in document["chunks"]
    ]


def layers_document(shape: tuple[int, int, int], chunks: list[GoldenLayers]) -> str:
    """Return layers.json."""

    def plain(faces: list[Enhancement]) -> list[str | None]:
        return [None if f is None else " ".join(map(str, f.ravel().tolist())) for f in faces]

    document = {
        "shape": shape,
        "chunks": [
            {
                "payload": chunk.payload.hex(),
                "symbols": plain(chunk.enhancements),
                "values": plain(chunk.values),
                "layers": [layer.hex() for layer in chunk.layers],
            }
            for chunk in chunks
        ],
    }
    return json.dumps(document, indent=1) + "\n"


def _face(face: dict[str, Any], shape: list[int]) -> EncodedFace:
    symbols = np.array(face["symbols"].split(), np.int32).reshape(shape)
    return EncodedFace(face["time_ms"], face["track_id"], Box(*face["box"]), symbols, face["level"])


def _plain(face: EncodedFace) -> dict[str, Any]:
    box = face.box
    return {
        "time_ms": face.time_ms,
        "track_id": face.track_id,
        "box": [box.x, box.y, box.width, box.height],
        "level": face.level,
        "symbols": " ".join(map(str, face.symbols.ravel().tolist())),
    }
