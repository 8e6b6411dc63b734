"""Bytes from outside: each damage has its name, and none crashes, hangs or allocates much."""

import contextlib
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from benchmarks.paths import PATHS
from mien.bitstream import (
    HEADER_BYTES,
    Box,
    EncodedFace,
    Envelope,
    Limits,
    checksum_bytes,
)
from mien.codec import ChunkCodec, declared_faces
from mien.errors import (
    BitstreamError,
    ChecksumError,
    LimitError,
    MalformedError,
    TruncatedError,
    VersionError,
    WrongBundleError,
)
from mien.holding import HALF
from mien.range_coder import TOTAL, RangeEncoder
from mien.side_counts import (
    FROM_NEXT_ID,
    FROM_USUAL,
    HEIGHT,
    MOVE,
    MOVES,
    RESIZE,
    TRACK,
    USUAL,
    USUAL_STEPS_MS,
)
from mien.side_information import EXPECTED, KNOWN, NEW, SideInformationWriter
from mien.stir import AFRESH, BY_BEFORE, GIVEN, STILL, UNKNOWN, stir_of
from mien.tables import CdfTables, afresh
from tests.support import chunk_outcome
from tests.support.chunk_outcome import outcome
from tests.support.chunks import chunks
from tests.support.tiny_bundle import SHAPE, tiny_symbols, tiny_tables, with_contexts

BUNDLE_ID = "3a" * 32
TABLES = tiny_tables()
LATENT_SIZE = int(np.prod(SHAPE))
LIMITS = Limits(max_chunk_bytes=4096, max_faces=16)
CODECS = {name: ChunkCodec(TABLES, BUNDLE_ID, LIMITS, reader) for name, reader in PATHS.items()}
CODEC = CODECS["plain"]
BOX = Box(10, 20, 30, 40)
FACES = tuple(EncodedFace(33 * i, 1, BOX, s) for i, s in enumerate(tiny_symbols(4)))
PAYLOAD = CODEC.encode(FACES)


def sealed(body: bytes) -> bytes:
    """A payload whose header and checksum are right, whatever its body."""
    return Envelope(BUNDLE_ID, 1 << 20).seal(body)


def check_outcome(payload: bytes) -> None:
    """Decode by every path: an error of the bitstream, or faces of which this is the payload."""
    chunk_outcome.check_outcome(list(CODECS.values()), payload, LIMITS)


@given(chunks(SHAPE))
def test_a_truncated_chunk_is_rejected_at_every_byte(faces):
    payload = CODEC.encode(faces)
    for size in range(len(payload)):
        expected = TruncatedError if size < HEADER_BYTES else ChecksumError
        with pytest.raises(expected):
            CODEC.decode(payload[:size])


@given(chunks(SHAPE, max_faces=2))
def test_every_flipped_bit_is_detected_and_named(faces):
    payload = CODEC.encode(faces)
    for position in range(8 * len(payload)):
        damaged = bytearray(payload)
        damaged[position // 8] ^= 0x80 >> position % 8
        if position < 4:
            expected: type[BitstreamError] = VersionError
        else:
            expected = WrongBundleError if position < 8 else ChecksumError
        with pytest.raises(expected):
            CODEC.decode(bytes(damaged))


def test_any_flipped_bit_of_the_longest_payload_changes_its_checksum():
    """Decision 0033. A CRC is linear: what a flip changes depends on how far from the end it is."""
    none = checksum_bytes(0)
    flipped, plain = [zlib.crc32(bytes([1 << bit])) for bit in range(8)], zlib.crc32(b"\0")
    for _ in range(Limits().max_chunk_bytes):
        assert all(checksum_bytes(crc ^ plain) != none for crc in flipped)
        flipped = [zlib.crc32(b"\0", crc) for crc in flipped]
        plain = zlib.crc32(b"\0", plain)


@given(chunks(SHAPE), st.binary(min_size=32, max_size=32).map(bytes.hex))
@example(FACES, "3" + "0" * 63)
def test_a_chunk_of_another_bundle_is_rejected(faces, other_id):
    same_tag = other_id[0] == BUNDLE_ID[0]
    payload = ChunkCodec(TABLES, other_id).encode(faces)
    if other_id != BUNDLE_ID:
        with pytest.raises(ChecksumError if same_tag else WrongBundleError):
            CODEC.decode(payload)


@given(st.binary(max_size=200))
def test_any_bytes_are_rejected(payload):
    with pytest.raises(BitstreamError):
        CODEC.decode(payload)


def test_a_chunk_over_the_limit_is_rejected_unread():
    with pytest.raises(LimitError, match="4097 bytes"):
        CODEC.decode(PAYLOAD.ljust(4097, b"\0"))


@given(st.binary(max_size=300))
def test_any_body_with_a_right_checksum_is_rejected_or_has_one_meaning(body):
    check_outcome(sealed(body))


@given(chunks(SHAPE), st.data())
def test_a_changed_body_with_a_right_checksum_is_rejected_or_has_one_meaning(faces, data):
    body = bytearray(CODEC.encode(faces)[HEADER_BYTES:])
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(body) - 1))
        body[position] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(body)))
    check_outcome(sealed(bytes(body[:cut])))
    check_outcome(sealed(bytes(body)))


@given(chunks(SHAPE), st.binary(min_size=1, max_size=20))
def test_bytes_behind_the_end_never_pass_for_the_same_faces(faces, more):
    longer = sealed(CODEC.encode(faces)[HEADER_BYTES:] + more)
    check_outcome(longer)
    with contextlib.suppress(BitstreamError):
        assert CODEC.decode(longer) != faces


@given(chunks(SHAPE), st.integers(1, 20))
def test_zeros_behind_the_end_are_rejected(faces, count):
    with pytest.raises(MalformedError, match="does not end"):
        CODEC.decode(sealed(CODEC.encode(faces)[HEADER_BYTES:] + bytes(count)))


def body_that_declares(count: int) -> bytes:
    coder = RangeEncoder()
    SideInformationWriter(coder, Limits()).write_count(count)
    return coder.finish()


@given(st.integers(17, (1 << 15) - 1))
def test_more_faces_than_allowed_are_rejected_when_declared(count):
    with pytest.raises(LimitError, match=f"declares {count} faces"):
        CODEC.decode(sealed(body_that_declares(count)))


def test_no_face_at_all_is_rejected():
    with pytest.raises(MalformedError, match="no face"):
        CODEC.decode(sealed(body_that_declares(0)))


@given(chunks(SHAPE, max_faces=16))
def test_the_faces_a_chunk_declares_are_those_it_decodes_to(faces):
    assert declared_faces(CODEC.encode(faces), LIMITS) == len(faces)


@given(st.integers(0, (1 << 15) - 1))
def test_what_is_declared_is_taken_within_the_limits(count):
    declared = declared_faces(sealed(body_that_declares(count)), LIMITS)
    assert declared == min(max(count, 1), LIMITS.max_faces)


@given(st.binary(max_size=40) | st.binary(max_size=30).map(sealed))
def test_no_payload_makes_its_declaration_less_than_what_is_decoded(payload):
    declared = declared_faces(payload, LIMITS)
    assert 1 <= declared <= LIMITS.max_faces
    with contextlib.suppress(BitstreamError):
        assert declared == len(CODEC.decode(payload))


def peak_bytes(codec: ChunkCodec, payload: bytes) -> int:
    tracemalloc.start()
    try:
        codec.decode(payload)
    except BitstreamError:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return peak


@pytest.mark.parametrize("path", PATHS)
def test_an_absurd_declared_size_allocates_next_to_nothing(path):
    CODECS[path].decode(PAYLOAD)
    payload = sealed(body_that_declares((1 << 15) - 1))
    assert peak_bytes(CODECS[path], payload) < 20_000


def escaping_tables(positions: int) -> CdfTables:
    """Tables by which nearly any bytes are escapes: the dearest latent to decode."""
    cdf = np.tile(np.array([0, 1, TOTAL], np.uint32), positions)
    sizes, offsets = np.full(positions, 2, np.int32), np.zeros(positions, np.int32)
    holds = np.full((1, positions), HALF, np.int32)
    gains = np.ones((1, positions), np.float32)
    contexts = afresh(1, 1, positions)
    return CdfTables(cdf, sizes, offsets, (positions, 1, 1), contexts, holds, gains)


def dearest_chunk(positions: int, limits: Limits) -> tuple[bytes, int]:
    """As many faces of nothing but escapes as fit, all that are allowed declared; and how many."""
    coder = RangeEncoder()
    writer = SideInformationWriter(coder, limits)
    writer.write_count(limits.max_faces)
    for index in range(limits.max_faces):
        writer.write(index, 1, BOX)
        if index:
            writer.write_stir(AFRESH, AFRESH if index > 1 else UNKNOWN)
        coder.encode_symbols([3 + index] * positions, escaping_tables(positions).rows())
    body = coder.finish()
    return sealed(body[: limits.max_chunk_bytes - HEADER_BYTES]), len(body)


@pytest.mark.parametrize("path", PATHS)
def test_the_dearest_hostile_chunk_stays_within_the_declared_memory(path):
    positions, limits = 300, Limits()
    payload, needed = dearest_chunk(positions, limits)
    assert len(payload) == limits.max_chunk_bytes < needed
    # Per symbol a Python int and its place in a list, then four bytes of an array.
    allowed = limits.max_faces * positions * 64 + 20 * limits.max_chunk_bytes
    codec = ChunkCodec(escaping_tables(positions), BUNDLE_ID, limits, PATHS[path])
    codec.decode(codec.encode([EncodedFace(0, 1, BOX, np.zeros((positions, 1, 1), np.int32))]))
    assert peak_bytes(codec, payload) < allowed


def test_an_empty_body_is_zeros_without_end_and_has_one_meaning():
    check_outcome(sealed(b""))


@pytest.mark.parametrize(
    "limits",
    [
        Limits(max_time_ms=98),
        Limits(max_track_id=0),
        Limits(max_box_px=39),
    ],
)
def test_values_beyond_the_readers_limits_are_rejected(limits):
    narrow = ChunkCodec(TABLES, BUNDLE_ID, limits)
    with pytest.raises(MalformedError, match="limit"):
        narrow.decode(PAYLOAD)


class Forger(SideInformationWriter):
    """Writes fields in forms that the honest writer never chooses."""

    def known_track_as_new(self, track_id: int) -> None:
        self._choice(NEW, TRACK)
        self._difference(track_id - self._history.next_id(), FROM_NEXT_ID)

    def expected_track_as_known(self) -> None:
        self._choice(KNOWN, TRACK)

    def first_step(self, usual: int, difference: int) -> None:
        self._choice(EXPECTED, TRACK)
        self._coder.encode(512, TOTAL)  # time goes on, for a track that was just seen
        self._choice(usual, USUAL)
        self._difference(difference, FROM_USUAL)


def forged_second_face(how: str) -> bytes:
    coder = RangeEncoder()
    forger = Forger(coder, Limits())
    forger.write_count(2)
    forger.write_choice(0, TABLES.levels)
    forger.write(0, 1, BOX)
    forger.write_choice(0, TABLES.priors)
    coder.encode_symbols([0] * LATENT_SIZE, TABLES.rows()[:LATENT_SIZE])
    if how == "known as new":
        forger.known_track_as_new(1)
    elif how == "expected as known":
        forger.expected_track_as_known()
    else:
        # 100 ms, from 67 and not from 100.
        forger.first_step(USUAL_STEPS_MS.index(67), 33)
    coder.encode_bits(0, 40)
    return coder.finish()


@pytest.mark.parametrize("how", ["known as new", "expected as known", "step from afar"])
def test_what_is_told_in_another_form_is_rejected(how):
    with pytest.raises(MalformedError, match="one form"):
        CODEC.decode(sealed(forged_second_face(how)))


def test_time_that_goes_back_is_rejected():
    coder = RangeEncoder()
    forger = Forger(coder, Limits())
    forger.write_count(2)
    forger.write_choice(0, TABLES.levels)
    forger.write(50, 1, BOX)
    forger.write_choice(0, TABLES.priors)
    coder.encode_symbols([0] * LATENT_SIZE, TABLES.rows()[:LATENT_SIZE])
    forger.first_step(0, -10 - USUAL_STEPS_MS[0])
    with pytest.raises(MalformedError, match="forward"):
        CODEC.decode(sealed(coder.finish()))


def forged_later_face(stir: int, changed: int, box_flag: int = 0) -> bytes:
    """A second face of a track that says how much it has changed, and changes so many symbols."""
    coder = RangeEncoder()
    writer = Forger(coder, Limits())
    writer.write_count(2)
    writer.write_choice(0, TABLES.levels)
    writer.write(50, 1, BOX)
    writer.write_choice(0, TABLES.priors)
    first = np.zeros(SHAPE, np.int32)
    coder.encode_symbols([0] * LATENT_SIZE, TABLES.rows()[:LATENT_SIZE])
    writer.first_step(0, 0)
    writer._choice(box_flag, MOVES)
    if box_flag:
        for model in (MOVE, MOVE, RESIZE, HEIGHT):
            writer._difference(0, model)
    writer.write_stir(stir, UNKNOWN)
    if stir == AFRESH:
        writer.write_choice(0, TABLES.priors)
    if stir in GIVEN:
        writer.write_told(stir, BY_BEFORE, BY_BEFORE)
    if stir != STILL:
        rows = range(LATENT_SIZE) if stir == AFRESH else TABLES.rows_given(first, stir)
        symbols = [1] * changed + [0] * (LATENT_SIZE - changed)
        coder.encode_symbols(symbols, [TABLES.rows()[row] for row in rows])
    return sealed(coder.finish())


@pytest.mark.parametrize("stir", [*GIVEN, AFRESH])
def test_a_face_that_has_not_changed_as_much_as_it_says_is_rejected(stir):
    for changed in range(LATENT_SIZE + 1):
        payload = forged_later_face(stir, changed)
        answers = [outcome(codec, payload) for codec in CODECS.values()]
        assert answers == answers[:1] * len(answers)
        if stir_of(changed) == stir:
            assert np.count_nonzero(answers[0][1].symbols) == changed
        else:
            assert answers[0] == (MalformedError, "a face has not changed as much as it says")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("what", ["level", "prior"])
def test_a_level_or_a_prior_that_the_tables_do_not_have_is_rejected(path, what):
    tables = with_contexts([[0, 60000, 65536]] * 9, [0] * 9, (1, 1, 1), (1.0,) * 3, priors=3)
    codec = ChunkCodec(tables, BUNDLE_ID, reader=PATHS[path])
    coder = RangeEncoder()
    writer = SideInformationWriter(coder, Limits())
    writer.write_count(1)
    coder.encode_bits(3 if what == "level" else 2, 2)
    writer.write(50, 1, BOX)
    coder.encode_bits(3 if what == "prior" else 2, 2)
    coder.encode_symbols([0], [([0, 60000, 65536], 0)])
    with pytest.raises(MalformedError, match="a level, a prior or a track"):
        codec.decode(sealed(coder.finish()))


def test_a_box_that_stands_and_is_told_as_one_that_moves_is_rejected():
    assert CODEC.decode(forged_later_face(STILL, 0))[1].box == BOX
    with pytest.raises(MalformedError, match="stands"):
        CODEC.decode(forged_later_face(STILL, 0, box_flag=1))
