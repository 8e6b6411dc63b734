"""Chunks: what is encoded is decoded, in as few bytes as the tables allow."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.paths import PATHS
from mien.bitstream import (
    HEADER_BYTES,
    MAX_BOX_PX,
    MAX_TIME_MS,
    MAX_TRACK_ID,
    Box,
    EncodedFace,
    Limits,
    bundle_tag,
    payload_tag,
)
from mien.codec import ChunkCodec
from mien.errors import EncodeError, LimitError, SymbolRangeError
from mien.holding import held_box
from mien.integer_cdf import integer_cdf
from mien.range_coder import BitCounter
from mien.side_counts import (
    COUNT,
    FIRST_ID,
    FIRST_TIME,
    HEIGHT,
    PLACE,
    SIDE,
    USUAL_STEPS_MS,
)
from mien.side_information import SideInformationWriter
from mien.stir import ALL_AFRESH, BY_BEFORE, GIVEN
from mien.tables import CdfTables
from mien.track_latents import TrackLatents
from tests.support.chunks import chunks
from tests.support.tiny_bundle import SHAPE, tiny_symbols, tiny_tables, with_contexts

BUNDLE_ID = "3a" * 32
TABLES = tiny_tables()
CODEC = ChunkCodec(TABLES, BUNDLE_ID)
BOX = Box(10, 20, 30, 40)
LATENT = np.zeros(SHAPE, np.int32)


def latent_bits() -> float:
    """What LATENT costs by the prior that suits it, on the level of the fewest bytes."""
    return TABLES.ideal_bits(LATENT, TABLES.first_rows(0, TABLES.best_prior(LATENT, 0)))


@given(chunks(SHAPE))
def test_faces_come_back_as_they_were(faces):
    payload = CODEC.encode(faces)
    assert CODEC.decode(payload) == faces
    assert CODEC.encode(faces) == payload


@given(chunks(SHAPE))
def test_a_chunk_costs_at_most_a_byte_and_its_header_over_the_ideal(faces):
    assert len(CODEC.encode(faces)) < CODEC.ideal_bits(faces) / 8 + HEADER_BYTES + 1.1


def test_the_header_takes_no_more_than_six_bytes():
    assert HEADER_BYTES <= 4


def moving_track(count: int, random: np.random.Generator, latents: np.ndarray) -> list[EncodedFace]:
    """One face at 30 frames a second, whose box moves by up to 2 pixels a frame, as it is told."""
    start_ms = int(random.integers(0, 24 * 3600 * 1000))
    x, y, width, height = random.integers(50, 400, 4)
    faces: list[EncodedFace] = []
    for index in range(count):
        box = Box(int(x), int(y), int(width), int(height))
        box = held_box(box, faces[-1].box) if faces else box
        faces.append(EncodedFace(start_ms + index * 1000 // 30, 17, box, latents[index]))
        x, y = x + random.integers(-2, 3), y + random.integers(-2, 3)
        width, height = width + random.integers(-1, 2), height + random.integers(-1, 2)
    return faces


@pytest.mark.parametrize("count", [1, 8, 64])
def test_real_bytes_stay_within_half_a_byte_of_the_ideal_on_average(count):
    random = np.random.default_rng(count)
    over = []
    for seed in range(150):
        faces = moving_track(count, random, tiny_symbols(count, seed))
        over.append(len(CODEC.encode(faces)) - HEADER_BYTES - CODEC.ideal_bits(faces) / 8)
    assert 0 < np.mean(over) <= 0.5
    assert max(over) <= 1.5


def skewed_codec(random: np.random.Generator) -> tuple[ChunkCodec, np.ndarray]:
    """A codec whose tables are as a trained prior's: most positions nearly always zero."""
    widths = random.gamma(0.7, 0.6, 24 * 9) + 0.08
    symbols = np.arange(-8, 9)
    rows = [integer_cdf([*np.exp(-np.abs(symbols) / w), 1e-4]) for w in widths]
    codec = ChunkCodec(CdfTables.from_rows(rows, [-8] * len(rows), (24, 3, 3)), BUNDLE_ID)
    drawn = np.rint(random.laplace(0, widths, (1000, 24 * 9))).astype(np.int32)
    return codec, drawn.reshape(-1, 24, 3, 3)


def test_the_overhead_is_as_small_with_skewed_tables_and_many_symbols():
    random = np.random.default_rng(3)
    codec, latents = skewed_codec(random)
    over = []
    for start in range(0, 1000, 8):
        faces = moving_track(8, random, latents[start : start + 8])
        over.append(len(codec.encode(faces)) - HEADER_BYTES - codec.ideal_bits(faces) / 8)
    assert 0 < np.mean(over) <= 0.5
    assert max(over) <= 1.5


def test_time_track_and_box_of_a_moving_face_take_few_bytes():
    random = np.random.default_rng(5)
    side_bytes = []
    for seed in range(100):
        faces = moving_track(8, random, tiny_symbols(8, seed))
        still = [replace(face, symbols=LATENT) for face in faces]
        afresh = latent_bits()
        side_bytes.append((CODEC.ideal_bits(still) - afresh) / 8 / 8)
    assert np.mean(side_bytes) <= 3.0


def test_two_faces_that_take_turns_cost_little_more_than_one():
    tracks = [
        EncodedFace(1000 + 33 * frame, track, Box(100 * track, 50, 60, 80), LATENT)
        for frame in range(8)
        for track in (3, 9)
    ]
    alone = [face for face in tracks if face.track_id == 3]
    assert CODEC.ideal_bits(tracks) < 2 * CODEC.ideal_bits(alone)


def added_bits(*more: EncodedFace) -> float:
    """What faces cost after the first of a track, beyond it."""
    first = EncodedFace(90_000, 3, BOX, LATENT)
    return CODEC.ideal_bits([first, *more]) - CODEC.ideal_bits([first])


@pytest.mark.parametrize("step_ms", USUAL_STEPS_MS)
def test_the_first_step_of_any_usual_rate_costs_less_than_a_byte(step_ms):
    assert added_bits(EncodedFace(90_000 + step_ms, 3, BOX, LATENT)) < 8
    odd = added_bits(EncodedFace(90_000 + step_ms + 13, 3, BOX, LATENT))
    assert added_bits(EncodedFace(90_000 + step_ms, 3, BOX, LATENT)) < odd


def test_steps_that_come_as_expected_cost_less_from_time_to_time():
    faces = [EncodedFace(90_000 + 113 * i, 3, BOX, LATENT) for i in range(1, 5)]
    costs = [added_bits(*faces[:count]) for count in range(5)]
    first, second, third, fourth = np.diff(costs)
    assert first > second > fourth
    assert third == pytest.approx(fourth, abs=0.1)  # the count is one length more


def test_a_new_track_that_is_counted_up_costs_less_than_another():
    latent = tiny_symbols(1)[0]
    next_one, far = (EncodedFace(90_000, track, BOX, latent) for track in (4, 40_000))
    assert added_bits(next_one) < added_bits(far) - 10
    for other in (next_one, far, replace(far, track_id=0)):
        faces = EncodedFace(90_000, 3, BOX, LATENT), other
        assert CODEC.decode(CODEC.encode(faces)) == faces


def test_faces_that_are_told_afresh_make_it_likely_for_the_next_one():
    # Few symbols are not zero, so other ones are few changes, which cost more than to begin anew.
    mass = 2.0 ** (-8 * np.abs(np.arange(-3, 4)))
    rows = [integer_cdf(np.append(mass / mass.sum(), 1e-3))] * LATENT.size
    tables = with_contexts(rows, [-3] * LATENT.size, SHAPE)
    latents = [LATENT.copy() for _ in range(4)]
    for index, latent in enumerate(latents):
        latent[0, 0, index % 3] = 1
    faces = tuple(EncodedFace(40 * i, 3, BOX, latent) for i, latent in enumerate(latents))
    told = TrackLatents(tables, 0)
    stirs = [told.tell(3, latent) for latent in latents]
    assert [one.how for one in stirs] == [BY_BEFORE, ALL_AFRESH, ALL_AFRESH, ALL_AFRESH]
    assert {one.stir for one in stirs[1:]} <= set(GIVEN)
    for reader in PATHS.values():
        codec = ChunkCodec(tables, BUNDLE_ID, reader=reader)
        assert codec.decode(codec.encode(faces)) == faces
    for stir in GIVEN:
        assert told_bits(stir, before=ALL_AFRESH) < 1.8 < told_bits(stir, before=BY_BEFORE)


def told_bits(stir: int, before: int) -> float:
    """What it takes to say that a face is told afresh."""
    counter = BitCounter()
    SideInformationWriter(counter, Limits()).write_told(stir, ALL_AFRESH, before)
    return counter.bits


def test_a_track_that_leaves_and_returns_in_a_chunk_comes_back():
    order = [1, 2, 1, 2, 3, 1, 3, 3, 2]
    faces = tuple(EncodedFace(40 * i // 2, t, BOX, LATENT) for i, t in enumerate(order))
    assert CODEC.decode(CODEC.encode(faces)) == faces


def test_the_largest_values_come_back():
    box = Box(-MAX_BOX_PX, -MAX_BOX_PX, MAX_BOX_PX, MAX_BOX_PX)
    jump = Box(MAX_BOX_PX, MAX_BOX_PX, 1, 1)
    latent = np.full(SHAPE, 32767, np.int32)
    faces = (
        EncodedFace(0, MAX_TRACK_ID, box, latent),
        EncodedFace(MAX_TIME_MS, MAX_TRACK_ID, jump, -latent),
        EncodedFace(MAX_TIME_MS, 0, box, latent),
    )
    assert CODEC.decode(CODEC.encode(faces)) == faces


def test_decoded_symbols_are_int32_of_the_latent_shape_and_cannot_be_changed():
    (face,) = CODEC.decode(CODEC.encode([EncodedFace(0, 0, BOX, LATENT)]))
    assert face.symbols.dtype == np.int32
    assert face.symbols.shape == SHAPE
    assert not face.symbols.flags.writeable


def test_a_payload_names_its_bundle():
    payload = CODEC.encode([EncodedFace(0, 0, BOX, LATENT)])
    assert payload_tag(payload) == bundle_tag(BUNDLE_ID) == 0x3


@given(st.integers(0, 2**32 - 1))
def test_chunks_do_not_depend_on_one_another(seed):
    first, second = ([EncodedFace(9, 1, BOX, s)] for s in tiny_symbols(2, seed))
    fresh = ChunkCodec(TABLES, BUNDLE_ID)
    CODEC.encode(first)
    assert CODEC.encode(second) == fresh.encode(second)


@pytest.mark.parametrize(
    "face",
    [
        EncodedFace(-1, 0, BOX, LATENT),
        EncodedFace(MAX_TIME_MS + 1, 0, BOX, LATENT),
        EncodedFace(0, -1, BOX, LATENT),
        EncodedFace(0, MAX_TRACK_ID + 1, BOX, LATENT),
        EncodedFace(0, 0, Box(0, 0, 0, 5), LATENT),
        EncodedFace(0, 0, Box(0, 0, 5, -5), LATENT),
        EncodedFace(0, 0, Box(MAX_BOX_PX + 1, 0, 5, 5), LATENT),
        EncodedFace(0, 0, Box(0, -MAX_BOX_PX - 1, 5, 5), LATENT),
        EncodedFace(0, 0, BOX, LATENT[:2]),
        EncodedFace(0, 0, BOX, LATENT.astype(np.float32)),
        EncodedFace(0, 0, BOX, LATENT.astype(np.int64)),
    ],
)
def test_a_face_that_no_chunk_can_carry_is_refused(face):
    with pytest.raises(EncodeError):
        CODEC.encode([face])


@pytest.mark.parametrize("symbol", [32768, -32768, 2**31 - 1, -(2**31)])
def test_a_symbol_beyond_the_escape_range_is_refused(symbol):
    latent = LATENT.copy()
    latent[1, 2, 0] = symbol
    with pytest.raises(SymbolRangeError, match="32767"):
        CODEC.encode([EncodedFace(0, 0, BOX, latent)])


def test_time_that_goes_back_is_refused():
    faces = [EncodedFace(5, 0, BOX, LATENT), EncodedFace(4, 0, BOX, LATENT)]
    with pytest.raises(EncodeError, match="order of time"):
        CODEC.encode(faces)


@pytest.mark.parametrize("count", [0, 65])
def test_a_chunk_of_no_face_or_of_too_many_is_refused(count):
    with pytest.raises(EncodeError, match="1 to 64"):
        CODEC.encode([EncodedFace(0, 0, BOX, LATENT)] * count)


def test_a_chunk_that_would_be_too_long_is_refused():
    latent = np.full(SHAPE, 32767, np.int32)
    small = ChunkCodec(TABLES, BUNDLE_ID, Limits(max_chunk_bytes=200))
    with pytest.raises(LimitError, match="fewer faces"):
        small.encode([EncodedFace(0, track, BOX, latent) for track in range(3)])


@pytest.mark.parametrize("bundle_id", ["", "3a", "zz" * 32, "3a" * 33, "3 " * 32])
def test_a_bundle_id_that_is_none_is_refused(bundle_id):
    with pytest.raises(EncodeError, match="64 hexadecimal"):
        ChunkCodec(TABLES, bundle_id)


@pytest.mark.parametrize(
    "limits",
    [
        {"max_chunk_bytes": 3},
        {"max_faces": 0},
        {"max_faces": 1 << 15},
        {"max_time_ms": -1},
        {"max_track_id": 1 << 48},
        {"max_box_px": 1 << 15},
    ],
)
def test_limits_that_the_format_cannot_hold_are_refused(limits):
    with pytest.raises(EncodeError, match=next(iter(limits))):
        Limits(**limits)


def test_the_ideal_counts_what_a_lone_face_needs():
    face = EncodedFace(0, 0, Box(0, 0, 1, 1), LATENT)
    # Lengths of 1 for the count and the side, of 0 for all else.
    shares = [counts[1] for counts in (FIRST_ID, FIRST_TIME, PLACE, PLACE, HEIGHT)]
    shares += [counts[2] - counts[1] for counts in (COUNT, SIDE)]
    # And one of 3 levels, and at last one of 2 priors.
    side_bits = sum(16 - math.log2(share) for share in shares) + 2 + 1
    assert CODEC.ideal_bits([face]) == pytest.approx(side_bits + latent_bits())
    assert math.isfinite(CODEC.ideal_bits([face]))


def test_a_face_that_does_not_change_costs_less_than_a_byte():
    latent = tiny_symbols(1)[0]
    faces = [EncodedFace(100 * i, 4, BOX, latent) for i in range(20)]
    assert len(CODEC.encode(faces)) - len(CODEC.encode(faces[:1])) < 19
    assert CODEC.decode(CODEC.encode(faces)) == tuple(faces)


def test_a_later_face_is_told_by_the_one_before_of_its_own_track():
    first, second = np.clip(tiny_symbols(2), -1, 1)
    step = np.zeros(SHAPE, np.int32)
    step[0, 0, 0] = 1
    turns = [
        EncodedFace(100 * i, track, BOX, latent + i % 2 * step)
        for i in range(6)
        for track, latent in ((1, first), (2, second))
    ]
    apart = [replace(face, track_id=9 + index) for index, face in enumerate(turns)]
    assert CODEC.decode(CODEC.encode(turns)) == tuple(turns)
    assert CODEC.ideal_bits(turns) < 0.5 * CODEC.ideal_bits(apart)
