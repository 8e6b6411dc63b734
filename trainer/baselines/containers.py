"""The part of a WebP or AVIF file that is no picture, and the file without it.

At tens of bytes a container decides how a codec looks: an AVIF file is 269 bytes before its first
coded bit. Published rates count whole files, and so do ours; what is left without a container is
reported beside them, because a system that knows its faces' size would not send one.
"""

import struct

_RIFF = struct.Struct("<4sI4s4sI")
_BOX = struct.Struct(">I4s")
_LENGTH = struct.Struct(">I")
_META_BOXES_AT = 4  # meta is a full box: version and flags come before what is in it
_META = b"meta"


def bare_webp(data: bytes) -> bytes:
    """The VP8 frame of a simple, lossy WebP file (RFC 9649, section 2.5).

    Raises ValueError for other bytes.
    """
    if len(data) < _RIFF.size:
        raise ValueError(f"expected a WebP file, got {len(data)} bytes")
    riff, _, webp, vp8, size = _RIFF.unpack_from(data)
    if (riff, webp, vp8) != (b"RIFF", b"WEBP", b"VP8 ") or _RIFF.size + size > len(data):
        raise ValueError("expected a simple lossy WebP file")
    return data[_RIFF.size : _RIFF.size + size]


def whole_webp(frame: bytes) -> bytes:
    """The file whose VP8 frame this is: the inverse of bare_webp."""
    padded = frame + b"\0" * (len(frame) % 2)
    rest = _RIFF.size - 8 + len(padded)
    return _RIFF.pack(b"RIFF", rest, b"WEBP", b"VP8 ", len(frame)) + padded


def bare_avif(data: bytes) -> bytes:
    """The AV1 data of an AVIF file with one picture: what its mdat box holds.

    Raises ValueError for bytes that are not such a file.
    """
    start, end = _box(data, b"mdat", 0, len(data))
    return data[start:end]


def whole_avif(picture: bytes, template: bytes) -> bytes:
    """The file whose AV1 data this is, after any other file of the same size and colours.

    Raises ValueError where the template is not an AVIF file as Pillow writes it.
    """
    start, end = _box(template, b"mdat", 0, len(template))
    head = bytearray(template[: start - _BOX.size])
    meta, meta_end = _box(template, _META, 0, len(template))
    _, iloc_end = _box(template, b"iloc", meta + _META_BOXES_AT, meta_end)
    length_at = iloc_end - _LENGTH.size  # the last field of the only extent of the only item
    if _LENGTH.unpack_from(head, length_at)[0] != end - start:
        raise ValueError("expected a template with one item of one extent")
    _LENGTH.pack_into(head, length_at, len(picture))
    return bytes(head) + _BOX.pack(_BOX.size + len(picture), b"mdat") + picture


def _box(data: bytes, name: bytes, at: int, end: int) -> tuple[int, int]:
    """Where the content of the first box of that name begins and ends (ISO/IEC 14496-12)."""
    while at + _BOX.size <= end:
        size, box = _BOX.unpack_from(data, at)
        if size < _BOX.size or at + size > end:
            raise ValueError(f"expected a box of an AVIF file at byte {at}")
        if box == name:
            return at + _BOX.size, at + size
        at += size
    raise ValueError(f"expected an AVIF file with a {name.decode()} box")
