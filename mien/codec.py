"""Faces to the bytes of a chunk, and back.

Decoding raises nothing but BitstreamError, whatever the bytes. What a hostile chunk can cost is
bounded before it is read: at most max_chunk_bytes are looked at and at most max_faces faces are
decoded, each as long as the tables say; beyond its end a body reads as zeros, it does not grow.
By the default limits, 64 faces of 300 symbols that are all escapes take 0.1 s and 2 MB at worst.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mien.bitstream import HEADER_BYTES, EncodedFace, Envelope, Limits, payload_tag
from mien.errors import BitstreamError, EncodeError, LimitError, MalformedError, SymbolRangeError
from mien.range_coder import MAX_SYMBOL, BitCounter, RangeDecoder, RangeEncoder
from mien.side_information import SideInformationReader, SideInformationWriter
from mien.tables import CdfTables

# The face count, at most 18 bits, is read from the first of these; the decoder looks ahead.
_COUNT_BYTES = 12


def declared_faces(payload: bytes, limits: Limits) -> int:
    """Return the faces a payload says it has, 1 to `limits.max_faces`, before it is decoded.

    What `decode` will cost at most: it reads as many as are declared, and none of a payload whose
    checksum does not hold, which is not looked at here. Raises nothing, whatever the bytes.
    """
    try:
        payload_tag(payload)
        head = RangeDecoder(payload[HEADER_BYTES : HEADER_BYTES + _COUNT_BYTES])
        declared = SideInformationReader(head, limits).read_count()
    except BitstreamError:
        return 1
    return min(max(declared, 1), limits.max_faces)


class ChunkCodec:
    """Codes the faces of one chunk into one payload, by the tables of one bundle.

    It keeps nothing between calls: chunks are independent, and threads may share it.
    """

    def __init__(self, tables: CdfTables, bundle_id: str, limits: Limits | None = None) -> None:
        self._tables = tables
        self._rows = tables.rows()
        self._limits = limits or Limits()
        self._envelope = Envelope(bundle_id, self._limits.max_chunk_bytes)

    def encode(self, faces: Sequence[EncodedFace]) -> bytes:
        """Return the payload of one or more faces, which are in the order of time.

        Raises EncodeError for what no chunk can carry, SymbolRangeError (one of them) for a
        symbol beyond ±32767, and LimitError when the payload would be longer than allowed.
        """
        self._check_count(len(faces))
        coder = RangeEncoder()
        writer = SideInformationWriter(coder, self._limits)
        writer.write_count(len(faces))
        for face in faces:
            symbols = self._checked(face.symbols)
            writer.write(face.time_ms, face.track_id, face.box)
            coder.encode_symbols(symbols.ravel().tolist(), self._rows)
        return self._envelope.seal(coder.finish())

    def decode(self, payload: bytes) -> tuple[EncodedFace, ...]:
        """Return the faces of a payload. Raises BitstreamError for any payload but encode's."""
        coder = RangeDecoder(self._envelope.open(payload))
        reader = SideInformationReader(coder, self._limits)
        count = reader.read_count()
        if count > self._limits.max_faces:
            raise LimitError(
                f"the chunk declares {count} faces, at most {self._limits.max_faces} are allowed"
            )
        if count < 1:
            raise MalformedError("the chunk declares no face")
        fields = []
        symbols: list[int] = []
        for _ in range(count):
            fields.append(reader.read())
            symbols += coder.decode_symbols(self._rows)
        coder.finish()
        latents = np.array(symbols, np.int32).reshape(count, *self._tables.shape)
        latents.setflags(write=False)
        return tuple(
            EncodedFace(time_ms, track_id, box, latent)
            for (time_ms, track_id, box), latent in zip(fields, latents, strict=True)
        )

    def ideal_bits(self, faces: Sequence[EncodedFace]) -> float:
        """Return what faces cost by the tables and the side information's counts.

        Without the header, and without what a real coder adds: the measure of `encode`.
        """
        counter = BitCounter()
        writer = SideInformationWriter(counter, self._limits)
        writer.write_count(len(faces))
        for face in faces:
            writer.write(face.time_ms, face.track_id, face.box)
        return counter.bits + sum(self._tables.ideal_bits(face.symbols) for face in faces)

    def _check_count(self, count: int) -> None:
        if not 1 <= count <= self._limits.max_faces:
            raise EncodeError(f"a chunk has 1 to {self._limits.max_faces} faces, not {count}")

    def _checked(self, symbols: NDArray[np.int32]) -> NDArray[np.int32]:
        if symbols.shape != self._tables.shape or symbols.dtype != np.int32:
            raise EncodeError(
                f"symbols must be int32 of shape {self._tables.shape}, "
                f"not {symbols.dtype} of {symbols.shape}"
            )
        if symbols.max() > MAX_SYMBOL or symbols.min() < -MAX_SYMBOL:
            raise SymbolRangeError(
                f"symbols must be within ±{MAX_SYMBOL}, "
                f"these are within {symbols.min()}..{symbols.max()}: is the face's latent finite?"
            )
        return symbols
