"""Devices that stream drawn faces, for pages that show something: nobody's picture is in it."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from edge_encoder.analysis import Analysis
from mien.bitstream import Box, EncodedFace
from mien.bundle import Bundle
from tests.support.recognizer import Device, Running, hello
from trainer.schematic import schematic_faces

# Device → tracks.
DEVICES = {"entrance-hall": 2, "garage": 1, "till.2": 3}
CHUNK_S = 0.5
FACE_MS = 100
# Drawn faces are much alike to a network that learned real ones. Their latents, weakened or turned
# round, are of nothing at all, and are named in several ways.
_STRENGTHS = (-0.5, 0.25, 0.5, 1.0)


class Scene:
    """Latents by the expression that the bundle names them with, int32 (C, H, W) each."""

    def __init__(self, bundle: Bundle, faces: int = 200) -> None:
        drawn = Analysis(bundle).symbols(list(schematic_faces(faces)))
        symbols = np.concatenate([np.rint(drawn * by).astype(np.int32) for by in _STRENGTHS])
        classifier = ort.InferenceSession(bundle.path("classifier.onnx"))
        self._level = bundle.manifest.latent.default_level
        level = np.full(len(symbols), self._level, np.int32)
        answers = classifier.run(None, {"symbols": symbols, "level": level})[0]
        best = np.asarray(answers).argmax(axis=1)
        self._bundle = bundle
        self.by_expression: list[NDArray[np.int32]] = [
            symbols[best == index] for index in range(len(bundle.manifest.expressions))
        ]

    def chunks(self, device_id: str, tracks: int) -> "Sequence[bytes]":
        """Two minutes of one device: faces change their expression now and then."""
        chance = random.Random(device_id)  # noqa: S311  # no secret
        kinds = [kind for kind in self.by_expression if len(kind)]
        now = [chance.choice(kinds) for _ in range(tracks)]
        time_ms, chunks = 0, []
        for _ in range(round(120 / CHUNK_S)):
            faces = []
            for _ in range(round(1000 * CHUNK_S / FACE_MS)):
                time_ms += FACE_MS
                for track in range(tracks):
                    if chance.random() < 0.02:
                        now[track] = chance.choice(kinds)
                    symbols = chance.choice(now[track])
                    box = Box(10, 20, 60, 64)
                    faces.append(EncodedFace(time_ms, track + 1, box, symbols, self._level))
            chunks.append(self._bundle.codec().encode(faces))
        return chunks

    @asynccontextmanager
    async def streaming(self, running: Running) -> AsyncIterator[None]:
        """All of DEVICES stream while the context lasts."""
        tasks = [asyncio.create_task(self._stream(running, *item)) for item in DEVICES.items()]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _with_layers(self, chunk: bytes) -> tuple[bytes, tuple[bytes, ...]]:
        """A chunk, and layers of its first face."""
        codec = self._bundle.layers()
        others = len(self._bundle.codec().decode(chunk)) - 1
        layers = codec.encode(chunk, [np.ones(codec.shape, np.int32), *[None] * others])
        return chunk, tuple(layers)

    async def _stream(self, running: Running, device_id: str, tracks: int) -> None:
        chunks = self.chunks(device_id, tracks)
        device = Device(running.stub, timeout_s=None)
        await device.open(hello(self._bundle, device_id))
        seq = 0
        while True:
            await device.send(seq + 1, *self._with_layers(chunks[seq % len(chunks)]))
            seq += 1
            await device.acknowledged(seq)
            await asyncio.sleep(CHUNK_S)
