"""Whether all ways of reading chunks answer the same: random payloads, whole and damaged.

Random tables, random faces; a part of the payloads stays whole, the others are damaged, most of
them with a checksum that holds, so that the range decoder gets to see the damage. Every path must
answer the same faces, or an error of the same class and words.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien.bitstream import HEADER_BYTES, Box, EncodedFace, Envelope, Limits
from mien.codec import ChunkCodec
from mien.compiled_reader import CompiledReader
from mien.errors import BitstreamError
from mien.integer_cdf import integer_cdf
from mien.plain_reader import PlainReader
from mien.range_coder import MAX_SYMBOL
from mien.reading import ReaderKind
from mien.stir import GIVEN
from mien.tables import CdfTables

PATHS: dict[str, ReaderKind] = {
    "plain": partial(PlainReader, min_lanes=1 << 30),
    "lockstep": partial(PlainReader, min_lanes=1),
}
"""By name what reads in one way alone: chunk after chunk, all in lockstep, and compiled."""
if find_spec("numba") is not None:
    PATHS["compiled"] = CompiledReader

PAYLOADS = 100_000
BATCH_CHUNKS = 500
BUNDLE_ID = "3a" * 32
LIMITS = Limits(max_chunk_bytes=2048, max_faces=6, max_box_px=2000, max_track_id=1 << 40)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """What became of the payloads, and how many of them the paths do not agree about."""
    return compare(options.payloads or PAYLOADS)


def compare(payloads: int, seed: int = 0) -> dict[str, Any]:
    """Decode so many random payloads by every path. Raises AssertionError where whole ones fail."""
    random = np.random.default_rng(seed)
    outcomes: Counter[str] = Counter()
    differences = 0
    for start in range(0, payloads, BATCH_CHUNKS):
        tables = random_tables(random)
        codecs = {
            name: ChunkCodec(tables, BUNDLE_ID, LIMITS, reader) for name, reader in PATHS.items()
        }
        batch = list(
            random_payloads(codecs["plain"], tables, random, min(BATCH_CHUNKS, payloads - start))
        )
        answers = [codec.decode_chunks(batch) for codec in codecs.values()]
        for first, *others in zip(*map(_comparable, answers), strict=True):
            differences += any(other != first for other in others)
            outcomes[first[0] if isinstance(first[0], str) else "faces"] += 1
    return {
        "paths": " ".join(PATHS),
        "payloads": payloads,
        **{f"answered_{name}": count for name, count in sorted(outcomes.items())},
        "differences": differences,
    }


def random_tables(random: np.random.Generator, levels: int | None = None) -> CdfTables:
    """Tables of 1 to 60 positions, narrow and wide, skewed and even, some far from zero.

    Of one to three quality levels, unless it is said of how many, and as many priors.
    """
    shape = tuple(random.integers(1, (5, 4, 4)).tolist())
    some, priors = random.integers(1, 4, 2).tolist()
    levels = levels or some
    positions = int(np.prod(shape))
    rows, offsets = [], []
    for _ in range(levels * priors * positions):
        bins = int(random.choice([2, 3, 9, 30]))
        rows.append(integer_cdf(random.gamma(random.choice([0.05, 1.0]), size=bins) + 1e-9))
        far = random.random() < 0.02
        offsets.append(int(random.integers(-MAX_SYMBOL, 30_000)) if far else -(bins // 2))
    contexts = np.zeros((levels, len(GIVEN), positions, 3), np.int32)
    for context in contexts.reshape(-1, positions, 3):
        for position in range(positions):
            count = int(random.integers(1, 4))
            context[position] = len(rows), count, random.integers(-2, 2)
            for _ in range(count):
                rows.append(integer_cdf(random.gamma(0.3, size=5) + 1e-9))
                offsets.append(offsets[position])
    gains = np.ones((levels, shape[0]))
    return CdfTables.from_rows(rows, offsets, shape, contexts, gains=gains, priors=priors)


def random_payloads(
    codec: ChunkCodec, tables: CdfTables, random: np.random.Generator, count: int
) -> Iterator[bytes]:
    """Chunks of random faces, of which more than half are damaged."""
    for _ in range(count):
        payload = codec.encode(_faces(tables, random))
        yield payload if random.random() < 0.4 else _damaged(payload, random)


def _faces(tables: CdfTables, random: np.random.Generator) -> list[EncodedFace]:
    """One to four faces on up to three tracks; symbols as the tables expect, and a few others."""
    tracks = random.integers(0, 1 << int(random.integers(1, 40)), 3).tolist()
    time_ms = int(random.integers(0, 1 << int(random.integers(1, 44))))
    box = random.integers(1, 200, 4)
    positions = int(np.prod(tables.shape))
    level = int(random.integers(0, tables.levels))
    rows = tables.first_rows(level, int(random.integers(0, tables.priors)))
    faces: list[EncodedFace] = []
    for _ in range(random.integers(1, 5)):
        symbols = drawn_symbols(tables, rows, random)
        if faces:  # most of a later face is as it was
            stays = random.random(positions) < random.choice([0.0, 0.6, 0.9, 1.0])
            symbols = np.where(stays, faces[-1].symbols.ravel(), symbols)
        if random.random() < 0.1:
            symbols[random.integers(0, symbols.size)] = random.integers(-MAX_SYMBOL, MAX_SYMBOL + 1)
        latent = np.clip(symbols, -MAX_SYMBOL, MAX_SYMBOL).astype(np.int32)
        track = int(tracks[random.integers(0, 3)])
        latent = latent.reshape(tables.shape)
        faces.append(EncodedFace(time_ms, track, Box(*box.tolist()), latent, level))
        time_ms += int(random.choice([0, 33, 34, random.integers(0, 5000)]))
        if random.random() < 0.5:
            box = np.clip(box + random.integers(-3, 4, 4), 1, 2000)
    return faces


def drawn_symbols(
    tables: CdfTables, rows: NDArray[np.int64], random: np.random.Generator
) -> NDArray[np.int64]:
    """A symbol by each of the rows, as often as the row expects it."""
    quotients = random.integers(0, 1 << 16, len(rows)).tolist()
    drawn = zip(rows.tolist(), quotients, strict=True)
    bins = [tables.counts(row).searchsorted(q, "right") - 1 for row, q in drawn]
    return np.asarray(tables.offsets[rows] + np.array(bins))


def _damaged(payload: bytes, random: np.random.Generator) -> bytes:
    """Damage that the checksum does not show; once in a while as in transit, which it does."""
    damage = DAMAGES[random.integers(0, len(DAMAGES))]
    if damage is None:
        position = random.integers(0, len(payload))
        return payload[:position] + random.bytes(1) + payload[position + 1 :]
    return _sealed(damage(payload[HEADER_BYTES:], random))


def changed(body: bytes, random: np.random.Generator) -> bytes:
    """Up to three of its bytes are others."""
    new = bytearray(body)
    for _ in range(random.integers(1, 4)):
        if new:
            new[random.integers(0, len(new))] = random.integers(0, 256)
    return bytes(new)


def cut(body: bytes, random: np.random.Generator) -> bytes:
    """Its beginning."""
    return body[: random.integers(0, max(len(body), 1))]


def longer(body: bytes, random: np.random.Generator) -> bytes:
    """More than it."""
    return body + random.bytes(random.integers(1, 5))


def anything(_: bytes, random: np.random.Generator) -> bytes:
    """Nothing of it."""
    return random.bytes(random.integers(0, 80))


Damage = Callable[[bytes, np.random.Generator], bytes]
# None: in transit.
DAMAGES: tuple[Damage | None, ...] = (changed, cut, longer, anything, None)


def _sealed(body: bytes) -> bytes:
    return Envelope(BUNDLE_ID, 1 << 16).seal(body)


def _comparable(
    answers: list[tuple[EncodedFace, ...] | BitstreamError],
) -> list[tuple[Any, ...]]:
    return [
        (answer.code, type(answer), str(answer)) if isinstance(answer, BitstreamError) else answer
        for answer in answers
    ]
