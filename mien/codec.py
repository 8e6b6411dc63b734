"""Faces to the bytes of a chunk, and back.

Decoding raises nothing but BitstreamError, whatever the bytes. What a hostile chunk can cost is
bounded before it is read: at most max_chunk_bytes are looked at and at most max_faces faces are
decoded, each as long as the tables say; beyond its end a body reads as zeros, it does not grow.
By the default limits, 64 faces of 300 symbols that are all escapes take 0.1 s and 2 MB at worst,
whichever way they are read.
"""

from collections.abc import Sequence
from functools import cached_property
from math import prod
from struct import unpack

import numpy as np
from numpy.typing import NDArray

from mien.bitstream import HEADER_BYTES, Box, EncodedFace, Envelope, Limits, payload_tag
from mien.chunk_reading import STATE_FIELDS, start
from mien.errors import BitstreamError, EncodeError, SymbolRangeError
from mien.plain_reader import PlainReader
from mien.range_coder import MAX_SYMBOL, BitCounter, RangeEncoder, Row
from mien.reading import WORD_BYTES, ChunkReader, Contents, FlatTables, ReaderKind
from mien.side_information import SideInformationWriter
from mien.stir import STILL
from mien.tables import CdfTables
from mien.track_latents import Told, TrackLatents

# The face count, at most 18 bits, is read from the first of these; the decoder looks ahead.
_COUNT_BYTES = 12


def declared_faces(payload: bytes, limits: Limits) -> int:
    """Return the faces a payload says it has, 1 to `limits.max_faces`, before it is decoded.

    What `decode` will cost at most: it reads as many as are declared, and none of a payload whose
    checksum does not hold, which is not looked at here. Raises nothing, whatever the bytes.
    """
    try:
        payload_tag(payload)
        head = payload[HEADER_BYTES : HEADER_BYTES + _COUNT_BYTES].ljust(_COUNT_BYTES, b"\0")
        declared = start([0] * STATE_FIELDS, unpack(f">{_COUNT_BYTES // WORD_BYTES}H", head))
    except BitstreamError:
        return 1
    return min(max(declared, 1), limits.max_faces)


class ChunkCodec:
    """Codes the faces of one chunk into one payload, by the tables of one bundle.

    It keeps nothing between calls: chunks are independent, and threads may share it.

    reader: how it decodes; made when the first chunk is, for a device never decodes any.
    """

    def __init__(
        self,
        tables: CdfTables,
        bundle_id: str,
        limits: Limits | None = None,
        reader: ReaderKind = PlainReader,
    ) -> None:
        self.tables = tables
        self._rows = tables.rows()
        self._first_rows = self._rows[: prod(tables.shape)]
        self._limits = limits or Limits()
        self._envelope = Envelope(bundle_id, self._limits.max_chunk_bytes)
        self._reader_kind = reader

    @cached_property
    def reader(self) -> ChunkReader:
        """What decodes."""
        return self._reader_kind(FlatTables.of(self.tables), self._limits)

    def encode(self, faces: Sequence[EncodedFace]) -> bytes:
        """Return the payload of one or more faces, which are in the order of time.

        Raises EncodeError for what no chunk can carry, SymbolRangeError (one of them) for a
        symbol beyond ±32767, and LimitError when the payload would be longer than allowed.
        """
        self._check_count(len(faces))
        coder = RangeEncoder()
        writer = SideInformationWriter(coder, self._limits)
        writer.write_count(len(faces))
        latents = TrackLatents(self.tables)
        for face in faces:
            symbols = self._checked(face.symbols)
            writer.write(face.time_ms, face.track_id, face.box)
            told = latents.tell(face.track_id, symbols)
            if told.before is not None:
                writer.write_stir(told.stir, told.before)
            if told.stir != STILL:
                coder.encode_symbols(symbols.ravel().tolist(), self._rows_of(told))
        return self._envelope.seal(coder.finish())

    def decode(self, payload: bytes) -> tuple[EncodedFace, ...]:
        """Return the faces of a payload. Raises BitstreamError for any payload but encode's."""
        (answer,) = self.decode_chunks([payload])
        if isinstance(answer, BitstreamError):
            raise answer
        return answer

    def decode_chunks(
        self, payloads: Sequence[bytes]
    ) -> list[tuple[EncodedFace, ...] | BitstreamError]:
        """Return for each payload its faces, or why it was not `encode` that wrote it.

        Chunks are independent: a damaged one costs the others nothing.
        """
        answers: list[tuple[EncodedFace, ...] | BitstreamError] = [()] * len(payloads)
        bodies = {}
        for position, payload in enumerate(payloads):
            try:
                bodies[position] = self._envelope.open(payload)
            except BitstreamError as error:
                answers[position] = error
        for position, read in zip(bodies, self.reader.read(list(bodies.values())), strict=True):
            answers[position] = read if isinstance(read, BitstreamError) else _faces(read)
        return answers

    def ideal_bits(self, faces: Sequence[EncodedFace]) -> float:
        """Return what faces cost by the tables and the side information's counts.

        Without the header, and without what a real coder adds: the measure of `encode`.
        """
        counter = BitCounter()
        writer = SideInformationWriter(counter, self._limits)
        writer.write_count(len(faces))
        latents = TrackLatents(self.tables)
        bits = 0.0
        for face in faces:
            writer.write(face.time_ms, face.track_id, face.box)
            told = latents.tell(face.track_id, face.symbols)
            if told.before is not None:
                writer.write_stir(told.stir, told.before)
            if told.stir != STILL:
                bits += self.tables.ideal_bits(face.symbols, told.rows)
        return counter.bits + bits

    def _rows_of(self, told: Told) -> list[Row]:
        if told.rows is None:
            return self._first_rows
        return [self._rows[row] for row in told.rows.tolist()]

    def _check_count(self, count: int) -> None:
        if not 1 <= count <= self._limits.max_faces:
            raise EncodeError(f"a chunk has 1 to {self._limits.max_faces} faces, not {count}")

    def _checked(self, symbols: NDArray[np.int32]) -> NDArray[np.int32]:
        if symbols.shape != self.tables.shape or symbols.dtype != np.int32:
            raise EncodeError(
                f"symbols must be int32 of shape {self.tables.shape}, "
                f"not {symbols.dtype} of {symbols.shape}"
            )
        if symbols.max() > MAX_SYMBOL or symbols.min() < -MAX_SYMBOL:
            raise SymbolRangeError(
                f"symbols must be within ±{MAX_SYMBOL}, "
                f"these are within {symbols.min()}..{symbols.max()}: is the face's latent finite?"
            )
        return symbols


def _faces(read: Contents) -> tuple[EncodedFace, ...]:
    return tuple(
        EncodedFace(time_ms, track_id, Box(x, y, width, height), latent)
        for (time_ms, track_id, x, y, width, height), latent in zip(
            read.fields, read.symbols, strict=True
        )
    )
