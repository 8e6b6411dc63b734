"""Enhancement layers at the edge: made of a chunk's faces when somebody may look at them.

    never       the device has no network for it in memory, and no request changes that
    on_request  of the next chunk after each request of the server
    always      of every chunk

Of each track only the first face of a chunk gets layers: a picture now and then is for looking at,
and each costs ten times what the expression does.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from edge_encoder.inference import open_session
from edge_encoder.steadying import AnalysedFace
from mien.bitstream import EncodedFace
from mien.bundle import Bundle

LayersPolicy = Literal["never", "on_request", "always"]


class Layering:
    """Whether and how the chunks of one source get layers. Used by the encoder's thread alone,
    but for `request`, which may come from any.

    made: layers so far, of all chunks.
    """

    def __init__(self, policy: LayersPolicy, bundle: Bundle) -> None:
        self._policy = policy
        self.made = 0
        self._requested = False
        self.change(bundle)

    def change(self, bundle: Bundle) -> None:
        """Make those of another bundle's chunks from now on; nothing is loaded before it has to."""
        self._bundle = bundle
        self._encoder: _Encoder | None = None

    def request(self) -> None:
        """Somebody asks for the layers of the next chunk; under `never` nothing comes of it."""
        self._requested = self._policy != "never"

    def layers(
        self, payload: bytes, coded: Sequence[EncodedFace], faces: Sequence[EncodedFace]
    ) -> tuple[bytes, ...]:
        """The layers of a chunk, none where none are wanted.

        coded: its faces as they are in the payload. faces: the same as they were analysed.
        Raises LimitError, BundleError.
        """
        if self._policy != "always" and not self._requested:
            return ()
        self._requested = False
        if self._encoder is None:
            self._encoder = _Encoder(self._bundle)
        layers = self._encoder.layers(payload, coded, faces)
        self.made += len(layers)
        return layers


class _Encoder:
    def __init__(self, bundle: Bundle) -> None:
        self._session = open_session(bundle.read("enhancement.onnx"))
        self._codec = bundle.layers()

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
        e = self._session.run(
            ["e"],
            {
                "face": np.stack([face.crop for face in chosen.values()]),
                "symbols": np.stack([coded[index].symbols for index in chosen]),
                "level": np.array([coded[index].level for index in chosen], np.int32),
            },
        )[0]
        latents = dict(zip(chosen, np.rint(e).astype(np.int32), strict=True))
        return tuple(self._codec.encode(payload, [latents.get(i) for i in range(len(coded))]))
