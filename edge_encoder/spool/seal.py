"""What stands in a row of the spool: a payload and its frames, sealed with AES-GCM where asked.

    body = version u8 | frames u16 | frames × (index u64, t_s f64) | payload      little-endian
    sealed body = nonce (12 bytes) | AES-256-GCM(body, associated data: the chunk's name)

The name (device, epoch, seq) is authenticated, so that no row can be put in another's place.
"""

import os
import stat
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_encoder.chunker import Chunk, FrameTime
from mien.errors import ConfigError, SpoolError

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_VERSION: Final = 1
_HEAD: Final = struct.Struct("<BH")
_FRAME: Final = struct.Struct("<Qd")


def body_of(chunk: Chunk) -> bytes:
    """The bytes that `chunk_of` reads back."""
    frames = b"".join(_FRAME.pack(frame.index, frame.t_s) for frame in chunk.frames)
    return _HEAD.pack(_VERSION, len(chunk.frames)) + frames + chunk.payload


def chunk_of(body: bytes) -> Chunk:
    """Raises SpoolError for bytes that `body_of` never wrote."""
    if len(body) < _HEAD.size:
        raise SpoolError(f"a chunk has {_HEAD.size} bytes at least, this one {len(body)}")
    version, count = _HEAD.unpack_from(body)
    end = _HEAD.size + count * _FRAME.size
    if version != _VERSION or len(body) < end:
        raise SpoolError(f"a chunk of version {version}, {count} frames and {len(body)} bytes")
    frames = _FRAME.iter_unpack(body[_HEAD.size : end])
    return Chunk(body[end:], tuple(FrameTime(index, t_s) for index, t_s in frames))


@dataclass(frozen=True)
class Seal:
    """How bodies are written: as they are, or encrypted."""

    close: Callable[[bytes, bytes], bytes]
    """(body, name) → what is stored."""
    open: Callable[[bytes, bytes], bytes]
    """The way back. Raises SpoolError where the key or the bytes are not right."""
    encrypts: bool


OPEN: Final = Seal(lambda body, name: body, lambda body, name: body, encrypts=False)


def sealed_by(key_file: Path | None) -> Seal:
    """AES-GCM with the key in a file; no file, no encryption.

    Raises ConfigError that says what the file must hold or which package is missing.
    """
    if key_file is None:
        return OPEN
    key = _key(key_file)
    try:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError as error:
        raise ConfigError(
            "spool_key needs the package cryptography: pip install 'mien[edge,encrypt]'"
        ) from error
    cipher = AESGCM(key)

    def close(body: bytes, name: bytes) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + cipher.encrypt(nonce, body, name)

    def open_(sealed: bytes, name: bytes) -> bytes:
        try:
            return cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], name)
        except (InvalidTag, ValueError) as error:
            raise SpoolError("the key does not open this, or the bytes were changed") from error

    return Seal(close, open_, encrypts=True)


def _key(path: Path) -> bytes:
    """32 bytes, or as many in hexadecimal digits; ConfigError otherwise."""
    try:
        mode = path.stat().st_mode
        with path.open("rb") as file:
            content = file.read(4 * KEY_BYTES)
    except OSError as error:
        raise ConfigError(f"spool_key: {path} cannot be read: {error.strerror}") from error
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        raise ConfigError(f"spool_key: others may read {path}: chmod 600 it")
    if len(content) == KEY_BYTES:
        return content
    try:
        key = bytes.fromhex(content.decode("ascii"))
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise ConfigError(
            f"spool_key: {path} must hold {KEY_BYTES} bytes or {2 * KEY_BYTES} hexadecimal "
            f"digits, it has {len(content)} bytes; make one with `openssl rand -hex {KEY_BYTES}`"
        )
    return key
