"""Hypothesis strategies for the faces of a chunk."""

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from mien.bitstream import MAX_BOX_PX, MAX_TIME_MS, MAX_TRACK_ID, Box, EncodedFace
from mien.range_coder import MAX_SYMBOL

_times = st.integers(0, 40) | st.integers(0, 1 << 40)
_sides = st.integers(1, 300) | st.integers(1, MAX_BOX_PX)
_coordinates = st.integers(-20, 2000) | st.integers(-MAX_BOX_PX, MAX_BOX_PX)
boxes = st.builds(Box, _coordinates, _coordinates, _sides, _sides)


@st.composite
def latents(draw: st.DrawFn, shape: tuple[int, int, int]) -> NDArray[np.int32]:
    """Symbols that are mostly near zero, and a few that are anything, int32 (C, H, W)."""
    size = int(np.prod(shape))
    random = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    symbols = np.rint(random.laplace(0, draw(st.sampled_from([0.1, 1, 4])), size)).astype(np.int32)
    anything = st.integers(-MAX_SYMBOL, MAX_SYMBOL)
    for position, symbol in draw(
        st.dictionaries(st.integers(0, size - 1), anything, max_size=3)
    ).items():
        symbols[position] = symbol
    return symbols.reshape(shape)


@st.composite
def chunks(
    draw: st.DrawFn, shape: tuple[int, int, int], max_faces: int = 6
) -> tuple[EncodedFace, ...]:
    """Faces in the order of time, on a few tracks whose boxes move, jump and come back."""
    tracks = draw(st.lists(st.integers(0, 5) | st.integers(0, MAX_TRACK_ID), min_size=1))
    time_ms = draw(st.integers(0, 1 << 30) | st.integers(0, MAX_TIME_MS))
    faces: list[EncodedFace] = []
    for _ in range(draw(st.integers(1, max_faces))):
        box, latent = draw(boxes), draw(latents(shape))
        if faces:
            box = draw(st.sampled_from([box, faces[-1].box]))
            random = np.random.default_rng(draw(st.integers(0, 1 << 32)))
            changes = random.random(shape) < draw(st.sampled_from([0, 0.05, 0.3, 1]))
            latent = np.where(changes, latent, faces[-1].symbols)
        faces.append(EncodedFace(time_ms, draw(st.sampled_from(tracks)), box, latent))
        time_ms = min(time_ms + draw(_times), MAX_TIME_MS)
    return tuple(faces)
