"""The segments of a JPEG file that carry no picture."""

_START_OF_IMAGE = b"\xff\xd8"
_COMMENT, _START_OF_SCAN = 0xFE, 0xDA
_APPLICATION = range(0xE0, 0xF0)


def without_application_segments(data: bytes) -> bytes:
    """The file without JFIF's, other APPn and comment segments (ITU-T T.81, B.1.1.3).

    Decoders then assume what JFIF says: Y for one component, YCbCr for three.
    Raises ValueError for bytes that are not a JPEG file up to its first scan.
    """
    if not data.startswith(_START_OF_IMAGE):
        raise ValueError("expected a JPEG file, which begins with FF D8")
    kept, at = [_START_OF_IMAGE], len(_START_OF_IMAGE)
    while True:
        if at + 4 > len(data) or data[at] != 0xFF:
            raise ValueError(f"expected a JPEG segment at byte {at}")
        marker = data[at + 1]
        if marker == _START_OF_SCAN:
            return b"".join([*kept, data[at:]])
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker != _COMMENT and marker not in _APPLICATION:
            kept.append(data[at:end])
        at = end
