"""A second look at the faces that a first one leaves in doubt.

A bundle's analysis may say, beside y, which faces are `doubtful`: those whose expression could as
well be another. Of these the mirror image is analysed, too, and what is coded is the mean of both
latents. It looks like any other latent, so a reader knows nothing of it; and a few faces in doubt
are where nearly all of the gain is that two looks at all faces would have (decision 0041).
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

DOUBTFUL = "doubtful"
"""The output of analysis.onnx that says so, bool (N,); a bundle may have none."""

Faces = NDArray[np.uint8]
Latents = NDArray[np.float32]
Analyse = Callable[[Faces], tuple[Latents, NDArray[np.bool_] | None]]


def looked_at(analyse: Analyse, faces: Faces) -> tuple[Latents, int]:
    """y, float32 (N, C, h, w), of faces, uint8 (N, channels, H, W), and how many had two looks.

    analyse: one run of analysis.onnx: y, and which faces it calls doubtful.
    """
    y, doubtful = analyse(faces)
    again = np.flatnonzero(doubtful) if doubtful is not None else np.zeros(0, np.intp)
    if len(again):
        mirrored, _ = analyse(np.ascontiguousarray(faces[again, ..., ::-1]))
        y = y.copy()  # a runtime's own
        y[again] = (y[again] + mirrored) / 2
    return y, len(again)
