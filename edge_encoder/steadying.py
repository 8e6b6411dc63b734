"""The faces of a chunk, made steady: what has not really changed since the face before stays.

It starts anew with each chunk, whose first face of a track is rounded, so nothing drifts for
longer than a chunk lasts, and a chunk depends on no other.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from mien.bitstream import EncodedFace
from mien.choosing import chosen
from mien.holding import held, held_box
from mien.tables import CdfTables


@dataclass(frozen=True, slots=True, eq=False)
class AnalysedFace(EncodedFace):
    """A face with what it was made of, until its chunk is coded.

    y: the latent that its symbols are rounded from, float32 (C, H, W), without gains.
    crop: the aligned picture, uint8 (channels, height, width).
    """

    y: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0, 0), np.float32))
    crop: NDArray[np.uint8] = field(default_factory=lambda: np.zeros((0, 0, 0), np.uint8))


def steadied(
    faces: Sequence[EncodedFace],
    tables: CdfTables,
    level: int | None = None,
    strength: float = 0.0,
) -> list[EncodedFace]:
    """The faces in their order, boxes and symbols held to those of the face before of each track.

    tables: of the bundle that they are coded with. level: to quantise them at; without, as they
    are. strength: of the choice of symbols, for a track's first face (mien.choosing). A face that
    comes without its latent, or with another bundle's, keeps its symbols.
    """
    latest: dict[int, EncodedFace] = {}
    steady = []
    for face in faces:
        before = latest.get(face.track_id)
        face = _at(face, tables, level, strength if before is None else 0.0)
        if before is not None:
            face = _steadied(face, before, tables)
        latest[face.track_id] = face
        steady.append(face)
    return steady


def _at(face: EncodedFace, tables: CdfTables, level: int | None, strength: float) -> EncodedFace:
    if not isinstance(face, AnalysedFace) or face.y.shape != tables.shape:
        return face
    wanted = face.level if level is None else level
    if wanted == face.level and not strength:
        return face
    y = face.y * tables.gains[wanted][:, None, None]
    return replace(face, symbols=chosen(y, tables, wanted, strength), level=wanted)


def _steadied(face: EncodedFace, before: EncodedFace, tables: CdfTables) -> EncodedFace:
    symbols = face.symbols
    if isinstance(face, AnalysedFace) and face.y.shape == before.symbols.shape == tables.shape:
        y = face.y * tables.gains[face.level][:, None, None]
        symbols = held(y, before.symbols, tables.holds[face.level])
    box = held_box(face.box, before.box)
    return EncodedFace(face.time_ms, face.track_id, box, symbols, face.level)
