"""Faces of a chunk made steady: noise does not change them, and what really changes does."""

import numpy as np

from edge_encoder.steadying import AnalysedFace, steadied
from mien.bitstream import Box, EncodedFace
from mien.holding import BOX_STEP, HOLD_UNIT, held, held_box
from tests.support.tiny_bundle import SHAPE, tiny_tables

TABLES = tiny_tables()
LEVEL = TABLES.levels - 1  # whose gains are 1
HOLD = float(TABLES.holds[LEVEL, 0] * HOLD_UNIT)
BOX = Box(100, 50, 96, 96)


def analysed(y: float, track_id: int = 1, box: Box = BOX) -> AnalysedFace:
    latent = np.full(SHAPE, y, np.float32)
    return AnalysedFace(0, track_id, box, np.rint(latent).astype(np.int32), LEVEL, latent)


def values(faces: list[EncodedFace]) -> list[int]:
    return [int(face.symbols[0, 0, 0]) for face in faces]


def test_a_latent_that_trembles_between_two_integers_keeps_its_symbol():
    faces = [analysed(y) for y in (0.45, 0.55, 0.45, 0.6, 0.4)]
    assert values(steadied(faces, TABLES)) == [0] * 5
    assert values(faces) == [0, 1, 0, 1, 0]


def test_a_latent_that_leaves_its_symbol_is_rounded_again():
    assert values(steadied([analysed(0), analysed(HOLD + 0.01)], TABLES)) == [0, 1]
    assert values(steadied([analysed(0), analysed(HOLD - 0.01)], TABLES)) == [0, 0]


def test_no_symbol_is_further_from_its_latent_than_its_hold():
    random = np.random.default_rng(4)
    before = random.integers(-3, 4, (500, *SHAPE)).astype(np.int32)
    y = (before + random.normal(0, 1, before.shape)).astype(np.float32)
    assert np.abs(y - held(y, before, TABLES.holds[LEVEL])).max() <= HOLD + 1e-6


def test_tracks_are_held_apart():
    faces = [analysed(0, 1), analysed(5, 2), analysed(0.6, 1), analysed(4.4, 2)]
    assert values(steadied(faces, TABLES)) == [0, 5, 0, 5]


def test_a_face_without_a_latent_keeps_its_symbols():
    bare = EncodedFace(0, 1, BOX, np.ones(SHAPE, np.int32), LEVEL)
    assert values(steadied([analysed(0), bare], TABLES)) == [0, 1]


def test_a_latent_that_is_no_number_reaches_the_codec_as_it_is():
    with np.errstate(invalid="ignore"):
        nothing = np.full(SHAPE, np.nan, np.float32)
        wild = held(nothing, np.zeros(SHAPE, np.int32), TABLES.holds[LEVEL])
    assert np.abs(wild.astype(np.int64)).min() > 32767


def test_faces_are_quantised_again_for_another_level():
    faces = steadied([analysed(4), analysed(4, 2)], TABLES, 0)
    assert [face.level for face in faces] == [0, 0]
    assert values(faces) == [round(4 * float(TABLES.gains[0, 0]))] * 2
    assert values(steadied([analysed(4)], TABLES, LEVEL)) == [4]


def test_a_box_stays_until_it_is_off_by_more_than_its_share():
    step = 96 // BOX_STEP
    assert held_box(Box(100 + step, 50 - step, 96, 96), BOX) == BOX
    moved = Box(100 + step + 1, 50, 96, 96)
    assert held_box(moved, BOX) == moved


def test_a_box_that_creeps_is_told_in_the_end():
    faces = [analysed(0, box=Box(100 + i, 50, 96, 96)) for i in range(30)]
    told = [face.box.x for face in steadied(faces, TABLES)]
    assert all(abs(x - 100 - i) <= 96 / BOX_STEP for i, x in enumerate(told))
    assert len(set(told)) < 6
