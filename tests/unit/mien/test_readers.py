"""All ways of reading chunks answer the same, chunk by chunk."""

import gc
import os
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.layer_paths import compare_layers
from benchmarks.paths import PATHS, compare
from mien.bitstream import HEADER_BYTES, Box, EncodedFace, Envelope, Limits
from mien.codec import ChunkCodec
from mien.errors import BitstreamError, ChecksumError, LimitError, MalformedError, TruncatedError
from mien.plain_reader import MIN_LANES
from mien.tables import CdfTables
from tests.support.chunks import chunks
from tests.support.tiny_bundle import SHAPE, tiny_symbols, tiny_tables

BUNDLE_ID = "3a" * 32
TABLES = tiny_tables()
LIMITS = Limits(max_faces=8)
CODECS = {name: ChunkCodec(TABLES, BUNDLE_ID, LIMITS, reader) for name, reader in PATHS.items()}
PLAIN = CODECS["plain"]
BOX = Box(10, 20, 30, 40)


def answers(codec: ChunkCodec, payloads: list[bytes]) -> list[object]:
    """Faces, or the class and the words of the error, of each payload."""
    return [
        (type(answer), str(answer)) if isinstance(answer, BitstreamError) else answer
        for answer in codec.decode_chunks(payloads)
    ]


def resealed(payload: bytes, change: tuple[int, int] | None) -> bytes:
    """The payload with one byte of its body changed, or none, and its checksum right."""
    body = bytearray(payload[HEADER_BYTES:])
    if change is not None and body:
        position, byte = change
        body[position % len(body)] = byte
    return Envelope(BUNDLE_ID, 1 << 20).seal(bytes(body))


changes = st.none() | st.tuples(st.integers(0, 1 << 16), st.integers(0, 255))


def test_the_compiled_path_is_among_those_that_are_compared():
    pytest.importorskip("numba")
    assert set(PATHS) == {"plain", "lockstep", "compiled"}


@given(st.lists(st.tuples(chunks(SHAPE, max_faces=4), changes), min_size=1, max_size=4))
def test_all_paths_agree_about_a_batch_some_of_whose_chunks_are_damaged(batch):
    payloads = [resealed(PLAIN.encode(faces), change) for faces, change in batch]
    expected = answers(PLAIN, payloads)
    for (faces, change), answer in zip(batch, expected, strict=True):
        if change is None:
            assert answer == faces
    for codec in CODECS.values():
        assert answers(codec, payloads) == expected
        assert [answers(codec, [payload])[0] for payload in payloads] == expected


def test_all_paths_agree_by_random_tables_about_random_payloads():
    figures = compare(1500, seed=7)
    assert figures["differences"] == 0
    assert figures["answered_faces"] > 300
    assert figures["answered_malformed"] > 100


def test_all_paths_agree_by_random_tables_about_random_layers():
    figures = compare_layers(400, seed=7)
    assert figures["layers_differences"] == 0
    assert figures["layers_answered_faces"] > 100
    assert figures["layers_answered_malformed"] > 100


def whole() -> bytes:
    return PLAIN.encode([EncodedFace(5, 1, BOX, symbols) for symbols in tiny_symbols(3)])


def batch_of_every_kind() -> tuple[list[bytes], list[type[BitstreamError] | None]]:
    good = whole()
    wide = ChunkCodec(TABLES, BUNDLE_ID, Limits(max_faces=9))
    many = wide.encode([EncodedFace(5, 1, BOX, s) for s in tiny_symbols(9)])
    return (
        [good, b"", good[:-1], many, good, resealed(good + b"\1", None), good],
        [None, TruncatedError, ChecksumError, LimitError, None, MalformedError, None],
    )


@pytest.mark.parametrize("path", PATHS)
def test_a_damaged_chunk_spoils_no_other_of_its_batch(path):
    payloads, kinds = batch_of_every_kind()
    found = CODECS[path].decode_chunks(payloads)
    assert [type(a) if isinstance(a, BitstreamError) else None for a in found] == kinds
    assert [len(a) for a in found if isinstance(a, tuple)] == [3, 3, 3]


@pytest.mark.parametrize("path", PATHS)
def test_a_batch_of_nothing_is_answered_by_nothing(path):
    assert CODECS[path].decode_chunks([]) == []


def lanes_of_escapes(random: np.random.Generator, positions: int) -> list[bytes]:
    """Chunks, more than lockstep needs, in which a third of the symbols are far escapes."""
    codec = ChunkCodec(far_tables(positions), BUNDLE_ID)
    payloads = []
    for _ in range(MIN_LANES + 3):
        symbols = random.integers(0, 3, positions).astype(np.int32)
        escapes = random.random(positions) < 1 / 3
        symbols[escapes] = random.integers(-32767, 32768, int(escapes.sum()))
        latent = symbols.reshape(positions, 1, 1)
        payloads.append(codec.encode([EncodedFace(0, 0, BOX, latent)] * random.integers(1, 4)))
    return payloads


def far_tables(positions: int) -> CdfTables:
    return CdfTables.from_rows(
        [[0, 20000, 40000, 65535, 65536]] * positions, [0] * positions, (positions, 1, 1)
    )


@pytest.mark.parametrize("path", PATHS)
def test_chunks_that_are_refused_keep_no_memory(path):
    payload = PLAIN.encode([EncodedFace(0, 0, BOX, tiny_symbols(1)[0])])
    damaged = [resealed(payload, (place, 0xFF)) for place in range(len(payload) - HEADER_BYTES)]
    refused = [
        one
        for one, kind in zip(damaged, answers(PLAIN, damaged), strict=True)
        if isinstance(kind, tuple) and isinstance(kind[0], type)
    ]
    assert refused
    CODECS[path].decode_chunks(refused)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        rounds = 1500 // len(refused) + 1
        for _ in range(rounds):
            CODECS[path].decode_chunks(refused)
        gc.collect()  # an error and where it was raised refer to each other
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (after - before) / (rounds * len(refused)) < 100, "bytes for each of them"


def test_escapes_of_many_words_do_not_upset_lockstep():
    payloads = lanes_of_escapes(np.random.default_rng(3), 40)
    decoded = {
        name: answers(ChunkCodec(far_tables(40), BUNDLE_ID, reader=reader), payloads)
        for name, reader in PATHS.items()
    }
    default = answers(ChunkCodec(far_tables(40), BUNDLE_ID), payloads)
    assert all(isinstance(answer, tuple) and answer[0].symbols.size for answer in default)
    assert all(found == default for found in decoded.values())


@pytest.mark.parametrize("path", PATHS)
def test_threads_may_share_a_codec(path):
    batches = [
        [PLAIN.encode([EncodedFace(seed, 1, BOX, s) for s in tiny_symbols(3, seed)])] * 3
        for seed in range(12)
    ]
    fresh = ChunkCodec(TABLES, BUNDLE_ID, LIMITS, PATHS[path])
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(fresh.decode_chunks, batches))
    assert found == [PLAIN.decode_chunks(batch) for batch in batches]


CHOICE = """
import sys
{before}
from mien.bitstream import Limits
from mien.compiled_reader import fastest_reader
from mien.reading import FlatTables
from tests.support.tiny_bundle import tiny_tables
tables = tiny_tables()
print("numba" in sys.modules, fastest_reader(FlatTables.of(tables), Limits()).name)
"""


@pytest.mark.parametrize(
    ("before", "expected"),
    [("", "False compiled"), ("sys.modules['numba'] = None", "True plain")],
)
def test_the_fastest_reader_is_compiled_where_numba_is_installed(before, expected):
    pytest.importorskip("numba")
    done = subprocess.run(
        [sys.executable, "-c", CHOICE.format(before=before)],
        capture_output=True,
        text=True,
        check=True,
        timeout=250,
    )
    assert done.stdout.split("\n")[0] == expected


def test_without_a_folder_for_its_cache_numba_compiles_all_the_same():
    pytest.importorskip("numba")
    script = (
        "from benchmarks.paths import PATHS\n"
        "from mien.codec import ChunkCodec\n"
        "from tests.unit.mien.test_readers import BUNDLE_ID, PLAIN, TABLES, whole\n"
        "codec = ChunkCodec(TABLES, BUNDLE_ID, reader=PATHS['compiled'])\n"
        "assert codec.decode(whole()) == PLAIN.decode(whole())"
    )
    # The one locator that finds a place for notebooks only.
    environment = os.environ | {"NUMBA_CACHE_LOCATOR_CLASSES": "IPythonCacheLocator"}
    subprocess.run([sys.executable, "-c", script], check=True, timeout=250, env=environment)
