"""MS-SSIM of faces, whose small size needs a smaller window."""

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_msssim import ms_ssim

_COARSEST = 16  # pixels to one at the last of five scales
_USUAL_WINDOW = 11
_BATCH = 256


def window_of(side: int) -> int:
    """The largest odd window, at most the usual 11, that fits at the coarsest of five scales.

    side: height or width in pixels, the smaller. 48 pixels are 3 at the fifth scale, so 3. Figures
    with different windows must not be compared. Raises ValueError below 33 pixels.
    """
    largest = (side - 1) // _COARSEST + 1
    window = min(_USUAL_WINDOW, largest - 1 + largest % 2)
    if window < 3:
        raise ValueError(f"expected at least 33 pixels for five scales, got {side}")
    return window


def ms_ssim_of(
    original: NDArray[np.uint8], reconstruction: NDArray[np.uint8]
) -> NDArray[np.float32]:
    """MS-SSIM of each face, float32 (N,), for uint8 (N, C, H, W).

    Wang, Simoncelli and Bovik, "Multiscale structural similarity for image quality assessment",
    2003, with its five weights; the window is window_of's instead of 11.
    Raises ValueError for faces below 33 pixels or of different shapes.
    """
    if original.shape != reconstruction.shape:
        raise ValueError(
            f"expected two sets of one shape, got {original.shape} and {reconstruction.shape}"
        )
    window = window_of(min(original.shape[2:]))
    similarity = np.empty(len(original), np.float32)
    with torch.inference_mode():
        for start in range(0, len(original), _BATCH):
            part = slice(start, start + _BATCH)
            similarity[part] = ms_ssim(
                torch.from_numpy(original[part]).float(),
                torch.from_numpy(reconstruction[part]).float(),
                data_range=255,
                size_average=False,
                win_size=window,
            ).numpy()
    return similarity
