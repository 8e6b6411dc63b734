"""Enhancement layers of a chunk: what makes its faces viewable, coded given the base.

    byte 0 ───── 2    3 ────────────────────────────────────────────
    ┌────────────┐  ┌───────────────────────────────────────────────┐
    │  checksum  │  │ one range-coded string; for each face of the  │
    │            │  │ chunk: whether it is there, prior, symbols    │
    └────────────┘  └───────────────────────────────────────────────┘

Each layer is a string of its own beside the chunk's payload: a reader that wants only expressions
never looks at it, and one that wants fewer bytes leaves the last ones out. The checksum is of the
payload's kind (mien.bitstream); its CRC starts from the payload's and the layer's number, so a
layer of another chunk, or out of order, does not pass.
The symbols are those of an enhancement that was analysed given the base: they say only what the
base does not. Of which of two quantisers each is, those before it in its layer say (mien.trellis).
The first of the first layer is the face's gain, by which the others were multiplied.
"""

import zlib
from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mien.bitstream import CHECKSUM_BYTES, Limits, checksum_bytes
from mien.errors import (
    BitstreamError,
    ChecksumError,
    LimitError,
    MalformedError,
    TablesError,
    TruncatedError,
)
from mien.plain_reader import PlainReader
from mien.range_coder import RangeEncoder
from mien.reading import ChunkReader, FlatTables, ReaderKind
from mien.side_information import choice_bits
from mien.tables import CdfTables
from mien.trellis import QUANTISERS, quantisers, values
from mien.trellis_choice import chosen

LAYER_HEADER_BYTES = CHECKSUM_BYTES

Latent = NDArray[np.int32]


def layer_checksum(payload: bytes, index: int, body: bytes) -> bytes:
    """What stands before the body of a layer, of the chunk with that payload and of that number."""
    seed = zlib.crc32(bytes([index]), zlib.crc32(payload))
    return checksum_bytes(zlib.crc32(body, seed))


def kept(index: int) -> int:
    """How many of a layer's first positions are kept as they are: one, the gain, of the first."""
    return int(index == 0)


class LayerCodec:
    """Codes one layer of a chunk's faces; threads may share it.

    tables: the layer's: in place of quality levels, the rows of each quantiser. index: its number,
    from 0. limits: a layer is no longer than a chunk may be.
    Raises TablesError for tables of anything else.
    """

    def __init__(
        self,
        tables: CdfTables,
        index: int,
        limits: Limits | None = None,
        reader: ReaderKind = PlainReader,
    ) -> None:
        if tables.levels != QUANTISERS:
            raise TablesError(
                f"a layer's tables have rows of {QUANTISERS} quantisers, these of {tables.levels}: "
                "they are of another version of mien, export the bundle again"
            )
        self.tables, self._index = tables, index
        self._limits = limits or Limits()
        self._reader_kind = reader

    @cached_property
    def _reader(self) -> ChunkReader:
        return self._reader_kind(FlatTables.of(self.tables), self._limits)

    def encode(self, payload: bytes, latents: Sequence[Latent | None]) -> bytes:
        """Return the layer of a chunk with this payload.

        latents: for each of its faces int32 (channels, H, W), None where the face has no layer.
        Raises EncodeError, SymbolRangeError, LimitError.
        """
        coder = RangeEncoder()
        for latent in latents:
            coder.encode_bits(int(latent is not None), 1)
            if latent is not None:
                self._encode(coder, latent)
        body = coder.finish()
        if LAYER_HEADER_BYTES + len(body) > self._limits.max_chunk_bytes:
            raise LimitError(
                f"the layer has {LAYER_HEADER_BYTES + len(body)} bytes, at most "
                f"{self._limits.max_chunk_bytes} are allowed; put fewer faces into one chunk"
            )
        return layer_checksum(payload, self._index, body) + body

    def decode(self, payload: bytes, faces: int, layer: bytes) -> list[Latent | None]:
        """Return what `encode` was given, for a payload that holds so many faces.

        Raises BitstreamError for bytes that no encoder writes. One may choose another prior for a
        face than `encode` does, the cheapest: that costs bytes and says the same.
        """
        if len(layer) > self._limits.max_chunk_bytes:
            raise LimitError(f"a layer has at most {self._limits.max_chunk_bytes} bytes")
        if len(layer) < LAYER_HEADER_BYTES:
            raise TruncatedError(f"a layer has at least {LAYER_HEADER_BYTES} bytes")
        checksum, body = layer[:LAYER_HEADER_BYTES], layer[LAYER_HEADER_BYTES:]
        if checksum != layer_checksum(payload, self._index, body):
            raise ChecksumError(
                "the layer's checksum does not hold: it was damaged, or is another chunk's"
            )
        read = self._reader.read_layer(body, faces)
        if isinstance(read, BitstreamError):
            raise read
        return read

    def _encode(self, coder: RangeEncoder, latent: Latent) -> None:
        self.tables.check_symbols(latent)
        further = quantisers(latent.reshape(1, -1)) * self.tables.first_row(1, 0)
        rows = further + [self.tables.first_rows(0, prior) for prior in range(self.tables.priors)]
        prior = int(self.tables.costs(latent, rows).sum(axis=1).argmin())
        coder.encode_bits(prior, choice_bits(self.tables.priors))
        by = [self.tables.row(row) for row in rows[prior].tolist()]
        coder.encode_symbols(latent.ravel().tolist(), by)


class LayersCodec:
    """Codes all layers of a chunk: a latent's channels, the first layer's first.

    ends: of each layer, how many channels a latent has with it and those before.
    Raises TablesError for layers that do not go together.
    """

    def __init__(
        self,
        tables: Sequence[CdfTables],
        limits: Limits | None = None,
        reader: ReaderKind = PlainReader,
    ) -> None:
        sizes = {t.shape[1:] for t in tables}
        if len(sizes) != 1:
            raise TablesError(
                f"layers of one enhancement have the same height and width, not {sizes}"
            )
        self._layers = [LayerCodec(t, index, limits, reader) for index, t in enumerate(tables)]
        self._starts = np.cumsum([0, *(t.shape[0] for t in tables)]).tolist()
        self.ends: tuple[int, ...] = tuple(self._starts[1:])

    @property
    def shape(self) -> tuple[int, int, int]:
        """(E, H, W) of an enhancement, all layers together."""
        _, height, width = self._layers[0].tables.shape
        return self._starts[-1], height, width

    def chosen(self, e: NDArray[np.float32]) -> NDArray[np.int32]:
        """Return the symbols for faces' enhancements, float32 (N, E, H, W): int32, same shape.

        Raises EncodeError where e is not finite.
        """
        parts = [
            chosen(e[:, start:end], layer.tables, kept(index))
            for index, (layer, start, end) in enumerate(self._parts())
        ]
        return np.concatenate(parts, axis=1)

    def values(self, latents: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return what symbols stand for, in half steps, as the synthesis reads them.

        latents: int32 (N, E, H, W), zeros for layers that are not there; the same shape comes back.
        """
        parts = [
            values(latents[:, start:end].reshape(len(latents), -1))
            for _, start, end in self._parts()
        ]
        return np.concatenate(parts, axis=1).reshape(latents.shape)

    def encode(self, payload: bytes, latents: Sequence[Latent | None]) -> list[bytes]:
        """Return the layers of a chunk; latents int32 (E, H, W). Raises as LayerCodec does."""
        return [
            layer.encode(payload, [None if e is None else e[start:end] for e in latents])
            for layer, start, end in self._parts()
        ]

    def decode(self, payload: bytes, faces: int, layers: Sequence[bytes]) -> list[Latent | None]:
        """Return each face's enhancement, int32 (E, H, W), zeros for layers that are not given.

        None for a face that no layer has. Raises BitstreamError, also where a face is in a layer
        and not in those before: what it would add to is not there.
        """
        if len(layers) > len(self._layers):
            raise LimitError(f"a chunk has at most {len(self._layers)} layers")
        latents: list[Latent | None] = [None] * faces
        for (codec, start, end), layer in zip(self._parts(), layers, strict=False):
            for face, part in enumerate(codec.decode(payload, faces, layer)):
                if part is None:
                    continue
                if not start:
                    latents[face] = np.zeros(self.shape, np.int32)
                whole = latents[face]
                if whole is None:
                    raise MalformedError(f"face {face} has a layer, and not those before it")
                whole[start:end] = part
        return latents

    def _parts(self) -> Iterator[tuple[LayerCodec, int, int]]:
        """Each layer, and where its channels begin and end."""
        return zip(self._layers, self._starts, self.ends, strict=False)
