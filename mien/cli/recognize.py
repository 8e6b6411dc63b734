"""`mien recognize`: the expressions in photographs, one JSON object for each face.

Faces are found and coded here, by what `mien-edge` finds and codes them with; only the coded chunk
of each photograph goes to the recognizer, through the unary Recognize.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mien.errors import MienError, SourceError
from mien.exit_codes import ExitCode

if TYPE_CHECKING:
    from mien.bitstream import EncodedFace
    from mien.v1.recognition_pb2_grpc import RecognitionServiceStub

_DEADLINE_S = 30.0
_CHUNK_FACES = 64

# Every line has these keys, in this order.
_EMPTY: dict[str, Any] = dict.fromkeys(
    (
        "image",
        "face",  # position in the photograph, the detector's surest first
        "box",
        "expression",
        "probability",
        "probabilities",
        "payload_bytes",  # its share of the chunk
        "bundle_id",
        "error",
    )
)


class NoFaceError(MienError):
    """A photograph in which no face was found."""

    code = "no_face"
