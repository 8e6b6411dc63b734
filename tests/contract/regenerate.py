"""Write the golden files anew: `python -m tests.contract.regenerate`, then review the difference.

Only for a change of the format that is meant; see tests.contract.fixtures.
"""

import hashlib
from dataclasses import replace

import numpy as np

from mien.bitstream import MAX_BOX_PX, MAX_TIME_MS, MAX_TRACK_ID, Box, EncodedFace
from mien.codec import ChunkCodec
from mien.layers import LayersCodec
from mien.manifest import FileEntry, ImageSpec, LatentSpec, Manifest
from mien.range_coder import MAX_SYMBOL
from tests.contract.fixtures import (
    CHUNKS,
    FOLDER,
    LAYER_TABLES,
    LAYERS,
    MANIFEST,
    TABLES,
    Enhancement,
    GoldenLayers,
    chunks_document,
    layers_document,
)
from tests.support.tiny_bundle import (
    EXPRESSIONS,
    LANDMARKS,
    SHAPE,
    tiny_layer_tables,
    tiny_symbols,
    tiny_tables,
)


def moving_track() -> list[EncodedFace]:
    """Eight faces of one person at 30 frames a second."""
    return [
        EncodedFace(86_400_000 + i * 1000 // 30, 5, Box(200 + i % 3, 90 - i, 88 + i // 4, 101), s)
        for i, s in enumerate(tiny_symbols(8, seed=1))
    ]


def several_tracks() -> list[EncodedFace]:
    """Three people who come, take turns, leave and come back, one at the picture's edge."""
    order = [1, 2, 1, 2, 30, 1, 30, 30, 2]
    return [
        EncodedFace(40 * (i // 2) + 7 * (i % 2), t, Box(-12 * t + i, 5 * t, 40 + t, 50), s)
        for i, (t, s) in enumerate(zip(order, tiny_symbols(9, seed=2), strict=True))
    ]


def extremes() -> list[EncodedFace]:
    """The largest and smallest values of every field, and escapes in every position."""
    ramp = np.linspace(-MAX_SYMBOL, MAX_SYMBOL, int(np.prod(SHAPE))).astype(np.int32)
    far = Box(-MAX_BOX_PX, MAX_BOX_PX, 1, MAX_BOX_PX)
    near = Box(MAX_BOX_PX, -MAX_BOX_PX, MAX_BOX_PX, 1)
    return [
        EncodedFace(0, 0, far, ramp.reshape(SHAPE)),
        EncodedFace(MAX_TIME_MS, 0, near, -ramp.reshape(SHAPE)),
        EncodedFace(MAX_TIME_MS, MAX_TRACK_ID, far, np.zeros(SHAPE, np.int32)),
    ]


def lone_faces() -> list[list[EncodedFace]]:
    """Chunks of one face each."""
    return [
        [EncodedFace(1000 * i, i, Box(i, i, 48, 48), s)]
        for i, s in enumerate(tiny_symbols(4, seed=3))
    ]


def golden_layers(codec: LayersCodec) -> list[GoldenLayers]:
    """Layers of faces that have some and of such that have none, and symbols far out."""
    random = np.random.default_rng(4)
    drawn = [random.normal(0, spread, codec.shape) for spread in (0.5, 1.5, 4, 12)]
    some = [np.rint(each).astype(np.int32) for each in drawn]
    far = np.linspace(-MAX_SYMBOL, MAX_SYMBOL, int(np.prod(codec.shape))).astype(np.int32)
    chunks: list[list[Enhancement]] = [
        [some[0], None, some[1]],
        [far.reshape(codec.shape)],
        [None, some[2], some[3], np.zeros(codec.shape, np.int32)],
    ]
    return [
        GoldenLayers(
            payload := bytes([0x50, index]),
            chunk,
            [None if face is None else codec.values(face[None])[0] for face in chunk],
            codec.encode(payload, chunk),
        )
        for index, chunk in enumerate(chunks)
    ]


def main() -> None:
    """Write all golden files."""
    FOLDER.mkdir(exist_ok=True)
    tables = tiny_tables()
    tables.save(TABLES)
    data = TABLES.read_bytes()
    manifest = Manifest(
        name="golden",
        created="2026-01-01",
        expressions=EXPRESSIONS,
        image=ImageSpec(1, 48, 48, LANDMARKS),
        latent=LatentSpec(*SHAPE, tables.levels - 1),
        figures={"accuracy": 0.8, "per_class": {"surprise": 0.9}},
        files={TABLES.name: FileEntry(hashlib.sha256(data).hexdigest(), len(data))},
    ).to_json()
    MANIFEST.write_bytes(manifest)
    bundle_id = hashlib.sha256(manifest).hexdigest()
    codec = ChunkCodec(tables, bundle_id)
    chunks = [
        [replace(face, level=index % tables.levels) for face in faces]
        for index, faces in enumerate(
            [moving_track(), several_tracks(), extremes(), *lone_faces()], 2
        )
    ]
    coded = [(faces, codec.encode(faces)) for faces in chunks]
    CHUNKS.write_text(chunks_document(bundle_id, SHAPE, coded))
    layer_tables = tiny_layer_tables()
    layer_tables[0].save(LAYER_TABLES)
    layers = LayersCodec(layer_tables)
    LAYERS.write_text(layers_document(layers.shape, golden_layers(layers)))


if __name__ == "__main__":
    main()
