"""What decoding any bytes may come to."""

from collections.abc import Sequence

import numpy as np

from mien.bitstream import Limits
from mien.codec import ChunkCodec
from mien.errors import BitstreamError
from mien.range_coder import MAX_SYMBOL


def outcome(codec: ChunkCodec, payload: bytes) -> object:
    """The faces, or the class and the words of the error."""
    try:
        return codec.decode(payload)
    except BitstreamError as error:
        return type(error), str(error)


def check_outcome(codecs: Sequence[ChunkCodec], payload: bytes, limits: Limits) -> None:
    """Decode: either an error of the bitstream, or faces that encode to what decodes to them.

    And to the very bytes, but for how a face is told afresh, which is the encoder's to choose.
    codecs: of the same tables, limits and bundle, reading in different ways; all must agree.
    """
    answers = [outcome(codec, payload) for codec in codecs]
    assert answers == answers[:1] * len(answers)
    try:
        faces = codecs[0].decode(payload)
    except BitstreamError:
        return
    assert 1 <= len(faces) <= limits.max_faces
    for face in faces:
        assert face.symbols.shape == codecs[0].tables.shape
        assert face.symbols.dtype == np.int32
        assert np.abs(face.symbols).max() <= MAX_SYMBOL
        assert 0 <= face.time_ms <= limits.max_time_ms
        assert 0 <= face.track_id <= limits.max_track_id
        assert face.box.width >= 1
        assert face.box.height >= 1
    again = codecs[0].encode(faces)
    assert codecs[0].decode(again) == faces
