"""The faces of a chunk, made steady: what has not really changed since the face before stays.

It starts anew with each chunk, whose first face of a track is rounded, so nothing drifts for
longer than a chunk lasts, and a chunk depends on no other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mien.bitstream import EncodedFace
from mien.holding import held, held_box
from mien.tables import CdfTables


@dataclass(frozen=True, slots=True, eq=False)
class AnalysedFace(EncodedFace):
    """A face with the latent that its symbols are rounded from, float32 (C, H, W)."""

    y: NDArray[np.float32]


def steadied(faces: Sequence[EncodedFace], tables: CdfTables) -> list[EncodedFace]:
    """The faces in their order, boxes and symbols held to those of the face before of each track.

    tables: of the bundle that they are coded with. A face that comes without its latent, or with
    another bundle's, keeps its symbols.
    """
    latest: dict[int, EncodedFace] = {}
    steady = []
    for face in faces:
        before = latest.get(face.track_id)
        if before is not None:
            face = _steadied(face, before, tables)
        latest[face.track_id] = face
        steady.append(face)
    return steady


def _steadied(face: EncodedFace, before: EncodedFace, tables: CdfTables) -> EncodedFace:
    symbols = face.symbols
    if isinstance(face, AnalysedFace) and face.y.shape == before.symbols.shape == tables.shape:
        symbols = held(face.y, before.symbols, tables.holds)
    return EncodedFace(face.time_ms, face.track_id, held_box(face.box, before.box), symbols)
