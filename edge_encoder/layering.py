"""Enhancement layers at the edge: made of a chunk's faces when somebody may look at them.

    never       the device has no network for it in memory, and no request changes that
    on_request  of the next chunk after each request of the server
    always      of every chunk

Of each track only the first face of a chunk gets layers: a picture now and then is for looking at,
and each costs sixteen times what the expression does.
"""

import logging
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from edge_encoder.alignment import Crop
from edge_encoder.config import LayersPolicy
from edge_encoder.inference import open_session
from edge_encoder.steadying import AnalysedFace
from mien.bitstream import EncodedFace
from mien.bundle import Bundle
from mien.errors import BundleError, EncodeError, LimitError, ManifestError

_log = logging.getLogger(__name__)


class Layering:
    """Whether and how the chunks of one source get layers. Used by the encoder's thread alone,
    but for `request`, which may come from any.

    on_failure: told the code of mien.errors of each chunk that goes without the layers wanted.
    """

    def __init__(
        self,
        policy: LayersPolicy,
        bundle: Bundle,
        on_failure: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._policy, self._on_failure = policy, on_failure
        self._requested = False
        self.change(bundle)

    def change(self, bundle: Bundle) -> None:
        """Make those of another bundle's chunks from now on; nothing is loaded before it has to."""
        self._bundle = bundle
        self._encoder: _Encoder | None = None
        self._wrong: BundleError | None = None

    def request(self) -> None:
        """Somebody asks for the layers of the next chunk; under `never` nothing comes of it."""
        self._wrong = None  # the file may have been a disk's fault, and somebody waits
        self._requested = self._policy != "never"

    def layers(
        self, payload: bytes, coded: Sequence[EncodedFace], faces: Sequence[EncodedFace]
    ) -> tuple[bytes, ...]:
        """The layers of a chunk, none where none are wanted, or none can be made.

        coded: its faces as they are in the payload. faces: the same as they were analysed.
        Expressions are what a chunk is for: it never waits for its layers, nor is lost with them.
        """
        if self._policy != "always" and not self._requested:
            return ()
        try:
            layers = self._opened().layers(payload, coded, faces)
        except (BundleError, EncodeError, LimitError) as error:
            self._requested = False  # the next request tries anew
            self._on_failure(error.code)
            _log.debug("a chunk goes without its enhancement layers: %s", error)
            return ()
        if layers:  # a chunk without a picture of any face answers no request: the next one may
            self._requested = False
        return layers

    def _opened(self) -> "_Encoder":
        """The bundle's; one that is wrong is not opened for each chunk anew, which takes time."""
        if self._wrong is not None:
            raise self._wrong.with_traceback(None)  # it would grow by each chunk
        if self._encoder is None:
            try:
                self._encoder = _Encoder(self._bundle)
            except BundleError as error:
                self._wrong = error
                raise
        return self._encoder


class _Encoder:
    """Raises BundleError where a bundle's enhancement.onnx is none of its layers."""

    def __init__(self, bundle: Bundle) -> None:
        self._codec = bundle.layers()
        model = bundle.read("enhancement.onnx")
        image, latent = bundle.manifest.image, bundle.manifest.latent
        blank = np.zeros((1, image.channels, image.height, image.width), np.uint8)
        try:
            self._session = open_session(model)
            shape = self._analysed(blank, np.zeros((1, *latent.shape), np.int32), [0]).shape
        except Exception as error:  # ONNX Runtime's have no class in common
            raise ManifestError(
                f"enhancement.onnx of bundle {bundle.bundle_id[:12]} does not run: {error}"
            ) from error
        if shape != (1, *self._codec.shape):
            raise ManifestError(
                f"enhancement.onnx of bundle {bundle.bundle_id[:12]} answers {shape[1:]}, "
                f"its layers are of {self._codec.shape}"
            )

    def layers(
        self, payload: bytes, coded: Sequence[EncodedFace], faces: Sequence[EncodedFace]
    ) -> tuple[bytes, ...]:
        seen: set[int] = set()
        chosen: dict[int, AnalysedFace] = {}
        for index, face in enumerate(faces):
            if isinstance(face, AnalysedFace) and face.track_id not in seen:
                seen.add(face.track_id)
                chosen[index] = face
        if not chosen:
            return ()
        e = self._analysed(
            np.stack([face.crop for face in chosen.values()]),
            np.stack([coded[index].symbols for index in chosen]),
            [coded[index].level for index in chosen],
        )
        latents = dict(zip(chosen, self._codec.chosen(e), strict=True))
        return tuple(self._codec.encode(payload, [latents.get(i) for i in range(len(coded))]))

    def _analysed(
        self, crops: Crop, symbols: NDArray[np.int32], levels: Sequence[int]
    ) -> NDArray[np.float32]:
        inputs = {"face": crops, "symbols": symbols, "level": np.array(levels, np.int32)}
        return np.asarray(self._session.run(["e"], inputs)[0], np.float32)
