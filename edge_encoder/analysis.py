"""The analysis transform g_a: aligned faces to the integers that are entropy-coded."""

import numpy as np
import numpy.typing as npt

from edge_encoder.alignment import Crop
from edge_encoder.inference import open_session
from mien.bundle import Bundle
from mien.errors import ManifestError
from mien.holding import quantised
from mien.second_look import DOUBTFUL, looked_at


class Analysis:
    """y = g_a(x) by the bundle's analysis.onnx, and y_hat = round(gains · y) at its own level.

    Of faces that it calls doubtful, y is the mean of two looks (mien.second_look). Raises
    ManifestError when y is not of the latent's shape, or doubts are of other faces than were asked
    about.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._session = open_session(bundle.read("analysis.onnx"))
        self._outputs = [node.name for node in self._session.get_outputs()]
        image, latent = bundle.manifest.image, bundle.manifest.latent
        blank = np.zeros((1, image.channels, image.height, image.width), np.uint8)
        # The first call also plans memory: better now than in the first frame.
        y, doubtful = self._run(blank)
        if y.shape != (1, *latent.shape):
            raise ManifestError(
                f"analysis.onnx of bundle {bundle.bundle_id[:12]} answers {y.shape[1:]}, "
                f"the manifest says {latent.shape}"
            )
        if doubtful is not None and doubtful.shape != (1,):
            raise ManifestError(
                f"analysis.onnx of bundle {bundle.bundle_id[:12]} says of {doubtful.shape} faces "
                "whether it doubts them, of 1 that it was asked about"
            )
        self._shape = latent.shape
        self.level = latent.default_level
        self._gains = bundle.tables.gains[self.level]

    def symbols(self, crops: list[Crop]) -> npt.NDArray[np.int32]:
        """Crops, N of uint8 (channels, height, width) → y_hat, int32 (N, C, h, w)."""
        return self.quantised(self.latents(crops)[0])

    def quantised(self, y: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
        """y, float32 (N, C, h, w), as `latents` gives it → y_hat at the bundle's own level."""
        return quantised(y, self._gains)

    def latents(self, crops: list[Crop]) -> tuple[npt.NDArray[np.float32], int]:
        """The same, without gains and not rounded → y, float32 (N, C, h, w).

        Returns with it how many had a second look.
        """
        if not crops:
            return np.zeros((0, *self._shape), np.float32), 0
        return looked_at(self._run, np.stack(crops))

    def _run(self, faces: Crop) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_] | None]:
        answers = dict(zip(self._outputs, self._session.run(None, {"face": faces}), strict=True))
        return np.asarray(answers["y"], np.float32), answers.get(DOUBTFUL)
