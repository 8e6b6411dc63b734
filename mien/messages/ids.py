"""Which texts are names of devices and bundles; all others are refused before they are used."""

import re

from mien.errors import ProtocolError

_DEVICE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_BUNDLE_ID = re.compile(r"[0-9a-f]{64}", re.ASCII)


def is_bundle_id(text: str) -> bool:
    """Whether a text is a bundle id, 64 hexadecimal digits, and so is safe in a path."""
    return _BUNDLE_ID.fullmatch(text) is not None


def check_device_id(field: str, text: str) -> None:
    """Raise ProtocolError, which names the field, for what is no device id."""
    if not _DEVICE_ID.fullmatch(text):
        raise ProtocolError(
            f"{field} must be 1 to 64 letters, digits, '.', '_' or '-', got {text[:80]!r}"
        )
