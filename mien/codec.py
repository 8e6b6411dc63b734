"""Faces to the bytes of a chunk, and back.

Decoding raises nothing but BitstreamError, whatever the bytes. What a hostile chunk can cost is
bounded before it is read: at most max_chunk_bytes are looked at and at most max_faces faces are
decoded, each as long as the tables say; beyond its end a body reads as zeros, it does not grow.
By the default limits, 64 faces of 300 symbols that are all escapes take 0.1 s and 2 MB at worst,
whichever way they are read.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from struct import unpack

from mien.bitstream import HEADER_BYTES, Box, EncodedFace, Envelope, Limits, payload_tag
from mien.errors import BitstreamError, EncodeError
from mien.plain_reader import PlainReader
from mien.range_coder import BitCounter, RangeEncoder
from mien.reading import WORD_BYTES, ChunkReader, Contents, FlatTables, ReaderKind
from mien.side_information import SideInformationWriter
from mien.side_reading import SIDE_CDF, STATE_FIELDS, start
from mien.stir import GIVEN, STILL
from mien.tables import CdfTables
from mien.track_latents import Told, TrackLatents

# The face count, at most 26 bits, is read from the first of these; the decoder looks ahead.
_COUNT_BYTES = 12


def declared_faces(payload: bytes, limits: Limits) -> int:
    """Return the faces a payload says it has, 1 to `limits.max_faces`, before it is decoded.

    What `decode` will cost at most: it reads as many as are declared, and none of a payload whose
    checksum does not hold, which is not looked at here. Raises nothing, whatever the bytes.
    """
    try:
        payload_tag(payload)
        head = payload[HEADER_BYTES : HEADER_BYTES + _COUNT_BYTES].ljust(_COUNT_BYTES, b"\0")
        words = unpack(f">{_COUNT_BYTES // WORD_BYTES}H", head)
        declared = start([0] * STATE_FIELDS, words, SIDE_CDF)
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
        for face, told in self._told(faces, writer):
            if told.stir != STILL:
                rows = [self.tables.row(row) for row in told.rows.tolist()]
                coder.encode_symbols(face.symbols.ravel().tolist(), rows)
        return self._envelope.seal(coder.finish())

    def _told(
        self, faces: Sequence[EncodedFace], writer: SideInformationWriter
    ) -> Iterator[tuple[EncodedFace, Told]]:
        """Write all but the symbols, which are to be written before the next face is asked for."""
        level = self._checked_level(faces)
        writer.write_count(len(faces))
        writer.write_choice(level, self.tables.levels)
        latents = TrackLatents(self.tables, level)
        for face in faces:
            self.tables.check_symbols(face.symbols)
            writer.write(face.time_ms, face.track_id, face.box)
            told = latents.tell(face.track_id, face.symbols)
            if told.before is not None:
                last_stir, last_how = told.before
                writer.write_stir(told.stir, last_stir)
                if told.stir in GIVEN:
                    writer.write_told(told.stir, told.how, last_how)
            if told.prior is not None:
                writer.write_choice(told.prior, self.tables.priors)
            yield face, told

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
        bits = sum(
            self.tables.ideal_bits(face.symbols, told.rows)
            for face, told in self._told(faces, writer)
            if told.stir != STILL
        )
        return counter.bits + bits

    def _checked_level(self, faces: Sequence[EncodedFace]) -> int:
        levels = {face.level for face in faces}
        if len(levels) != 1 or not 0 <= min(levels) < self.tables.levels:
            raise EncodeError(
                f"the faces of a chunk have one level of 0..{self.tables.levels - 1}, "
                f"not {sorted(levels)}"
            )
        return levels.pop()

    def _check_count(self, count: int) -> None:
        if not 1 <= count <= self._limits.max_faces:
            raise EncodeError(f"a chunk has 1 to {self._limits.max_faces} faces, not {count}")


def _faces(read: Contents) -> tuple[EncodedFace, ...]:
    return tuple(
        EncodedFace(time_ms, track_id, Box(x, y, width, height), latent, read.level)
        for (time_ms, track_id, x, y, width, height), latent in zip(
            read.fields, read.symbols, strict=True
        )
    )
