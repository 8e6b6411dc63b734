"""Whether all ways of reading enhancement layers answer the same, as benchmarks.paths has chunks.

Random tables, random faces, some of which have no layer; more than half of the layers are damaged,
with a checksum that holds.
"""

import argparse
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.paths import (
    LIMITS,
    PATHS,
    PAYLOADS,
    Damage,
    anything,
    changed,
    cut,
    drawn_symbols,
    longer,
    random_tables,
)
from mien.errors import BitstreamError
from mien.layers import LAYER_HEADER_BYTES, LayersCodec, layer_checksum
from mien.range_coder import MAX_SYMBOL
from mien.tables import CdfTables
from mien.trellis import QUANTISERS

BATCH = 100
DAMAGES: tuple[Damage, ...] = (changed, cut, longer, anything)


class Layered(NamedTuple):
    """A chunk's payload, of how many faces it is, and its layers."""

    payload: bytes
    faces: int
    layers: list[bytes]


def run(options: argparse.Namespace) -> dict[str, Any]:
    """The same of layers as benchmarks.paths of payloads, for a quarter as many chunks."""
    return compare_layers((options.payloads or PAYLOADS) // 4)


def compare_layers(chunks: int, seed: int = 0) -> dict[str, Any]:
    """Decode the layers of so many chunks by every path, and count where paths do not agree."""
    random = np.random.default_rng(seed)
    outcomes: Counter[str] = Counter()
    differences = 0
    for start in range(0, chunks, BATCH):
        tables = layer_tables(random)
        codecs = [LayersCodec(tables, LIMITS, reader) for reader in PATHS.values()]
        for layered in random_layers(codecs[0], tables[0], random, min(BATCH, chunks - start)):
            first, *others = (answer(codec, layered) for codec in codecs)
            differences += any(other != first for other in others)
            outcomes["faces" if isinstance(first, list) else first[0]] += 1
    return {
        "layered_chunks": chunks,
        **{f"layers_answered_{name}": count for name, count in sorted(outcomes.items())},
        "layers_differences": differences,
    }


def layer_tables(random: np.random.Generator) -> list[CdfTables]:
    """Random tables for two layers that are alike."""
    return [random_tables(random, QUANTISERS)] * 2


def random_layers(
    codec: LayersCodec, tables: CdfTables, random: np.random.Generator, count: int
) -> Iterator[Layered]:
    """The layers of chunks with random payloads; of more than half one layer is damaged."""
    for _ in range(count):
        payload, faces = random.bytes(8), int(random.integers(1, 5))
        there = random.random(faces) < 0.8
        latents = [_latent(codec, tables, random) if one else None for one in there]
        layers = codec.encode(payload, latents)
        if random.random() < 0.6:
            index = int(random.integers(0, len(layers)))
            damage = DAMAGES[random.integers(0, len(DAMAGES))]
            body = damage(layers[index][LAYER_HEADER_BYTES:], random)
            layers[index] = layer_checksum(payload, index, body) + body
        yield Layered(payload, faces, layers)


def answer(codec: LayersCodec, layered: Layered) -> list[Any] | tuple[str, str]:
    """Of each face symbols and what they stand for; or an error's class and words."""
    try:
        read = codec.decode(*layered)
    except BitstreamError as error:
        return error.code, f"{type(error).__name__}: {error}"
    return [
        None if latent is None else (latent.tolist(), codec.values(latent[None]).tolist())
        for latent in read
    ]


def _latent(
    codec: LayersCodec, tables: CdfTables, random: np.random.Generator
) -> NDArray[np.int32]:
    """Symbols as the tables of both layers expect them, and now and then one that is far off."""
    symbols = []
    for _ in codec.ends:
        quantiser = int(random.integers(0, QUANTISERS))
        rows = tables.first_rows(quantiser, int(random.integers(0, tables.priors)))
        symbols.append(drawn_symbols(tables, rows, random))
    latent = np.concatenate(symbols).clip(-MAX_SYMBOL, MAX_SYMBOL)
    if random.random() < 0.1:
        latent[random.integers(0, latent.size)] = random.integers(-MAX_SYMBOL, MAX_SYMBOL + 1)
    return latent.astype(np.int32).reshape(codec.shape)
