"""What a chunk is on the wire.

    byte 0              1 ───────── 3    4 ───────────────────────────────────
    ┌───────┬───────┐  ┌────────────┐  ┌──────────────────────────────────────┐
    │version│bundle │  │  checksum  │  │ one range-coded string: face count,  │
    │ 4 bits│tag 4  │  │            │  │ level; time, track, box, stir or     │
    │       │       │  │            │  │ prior and symbols of each face       │
    └───────┴───────┘  └────────────┘  └──────────────────────────────────────┘

The tag is the first digit of the bundle id. The checksum is the lower 24 bits of a CRC-32 over the
first byte and the body that starts from the CRC of the whole bundle id, so a payload of another
bundle with the same tag does not pass either. It guards against mistakes and against storage that
decays: what carries a chunk has checksums of its own, or a signature. The chunk's length comes
from the message that carries it.
"""

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mien.errors import (
    ChecksumError,
    EncodeError,
    LimitError,
    TruncatedError,
    VersionError,
    WrongBundleError,
)

VERSION = 3
CHECKSUM_BYTES = 3
HEADER_BYTES = 1 + CHECKSUM_BYTES
MAX_TIME_MS = (1 << 48) - 1
MAX_TRACK_ID = (1 << 48) - 1
MAX_BOX_PX = (1 << 15) - 1
MAX_FACES = (1 << 15) - 1
_TAG_BITS = 4
_BUNDLE_ID_DIGITS = 64


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels of the source frame; x and y may be negative, at its left and top."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, slots=True, eq=False)
class EncodedFace:
    """One face of a chunk.

    time_ms: milliseconds since the epoch's start, 0 or more.
    track_id: 0 or more, the same for all faces of one person in view.
    symbols: int32 (C, H, W), the quantised latent y_hat.
    level: the quality level by whose gains they were quantised, the same in all of a chunk.
    """

    time_ms: int
    track_id: int
    box: Box
    symbols: NDArray[np.int32]
    level: int = 0

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, EncodedFace):
            return NotImplemented
        return (self.time_ms, self.track_id, self.box, self.level) == (
            other.time_ms,
            other.track_id,
            other.box,
            other.level,
        ) and np.array_equal(self.symbols, other.symbols)

    __hash__ = None  # type: ignore[assignment]  # it holds an array


@dataclass(frozen=True, slots=True)
class Limits:
    """What a chunk may be at most; a decoder allocates and computes for no more than this.

    max_time_ms, max_track_id: largest values of a face's fields.
    max_box_px: largest magnitude of a box's coordinates and sides.
    """

    max_chunk_bytes: int = 16384
    max_faces: int = 64
    max_time_ms: int = MAX_TIME_MS
    max_track_id: int = MAX_TRACK_ID
    max_box_px: int = MAX_BOX_PX

    def __post_init__(self) -> None:
        for name, value, smallest, largest in (
            ("max_chunk_bytes", self.max_chunk_bytes, HEADER_BYTES, 1 << 24),
            ("max_faces", self.max_faces, 1, MAX_FACES),
            ("max_time_ms", self.max_time_ms, 0, MAX_TIME_MS),
            ("max_track_id", self.max_track_id, 0, MAX_TRACK_ID),
            ("max_box_px", self.max_box_px, 1, MAX_BOX_PX),
        ):
            if not smallest <= value <= largest:
                raise EncodeError(f"{name} must be within {smallest}..{largest}, not {value}")


def bundle_tag(bundle_id: str) -> int:
    """Return the 4 bits by which a payload names its bundle."""
    return _bundle_bytes(bundle_id)[0] >> 4


def payload_tag(payload: bytes) -> int:
    """Return the bundle tag of a payload, nothing else of which is checked.

    Raises TruncatedError and VersionError.
    """
    if len(payload) < HEADER_BYTES:
        raise TruncatedError(
            f"a payload has at least {HEADER_BYTES} bytes, this one has {len(payload)}"
        )
    head = payload[0]
    if head >> _TAG_BITS != VERSION:
        raise VersionError(
            f"the payload is of version {head >> _TAG_BITS}, version {VERSION} is read here"
        )
    return head & ((1 << _TAG_BITS) - 1)


class Envelope:
    """Puts the header of one bundle's chunks on, checks it and takes it off."""

    def __init__(self, bundle_id: str, max_chunk_bytes: int) -> None:
        self._bundle_id = bundle_id
        self._tag = bundle_tag(bundle_id)
        self._seed = zlib.crc32(_bundle_bytes(bundle_id))
        self._max_chunk_bytes = max_chunk_bytes

    def seal(self, body: bytes) -> bytes:
        """Return the payload of a body. Raises LimitError when it is too long."""
        self._check_size(HEADER_BYTES + len(body))
        head = bytes([VERSION << _TAG_BITS | self._tag])
        return head + self._checksum(head, body) + body

    def open(self, payload: bytes) -> bytes:
        """Return the body of a payload that is whole and of this bundle.

        Raises LimitError, TruncatedError, VersionError, WrongBundleError, ChecksumError.
        """
        self._check_size(len(payload))
        tag = payload_tag(payload)
        if tag != self._tag:
            raise WrongBundleError(
                f"the payload was coded with a bundle whose id starts {tag:x}, "
                f"this is {self._bundle_id[:12]}…"
            )
        head, checksum, body = payload[:1], payload[1:HEADER_BYTES], payload[HEADER_BYTES:]
        if checksum != self._checksum(head, body):
            raise ChecksumError(
                f"the checksum of {len(payload)} bytes does not hold: they were damaged or cut on "
                f"the way, so send the chunk again; or coded with another bundle whose id starts "
                f"{tag:x}"
            )
        return body

    def _check_size(self, size: int) -> None:
        if size > self._max_chunk_bytes:
            raise LimitError(
                f"the chunk has {size} bytes, at most {self._max_chunk_bytes} are allowed; "
                "put fewer faces into one chunk"
            )

    def _checksum(self, head: bytes, body: bytes) -> bytes:
        return checksum_bytes(zlib.crc32(body, zlib.crc32(head, self._seed)))


def checksum_bytes(crc: int) -> bytes:
    """What is sent of a CRC-32."""
    return (crc & ((1 << 8 * CHECKSUM_BYTES) - 1)).to_bytes(CHECKSUM_BYTES, "big")


def _bundle_bytes(bundle_id: str) -> bytes:
    try:
        if len(bundle_id) == _BUNDLE_ID_DIGITS:
            return bytes.fromhex(bundle_id)
    except ValueError:
        pass
    raise EncodeError(f"a bundle id is {_BUNDLE_ID_DIGITS} hexadecimal digits, not {bundle_id!r}")
