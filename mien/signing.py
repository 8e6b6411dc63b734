"""Who vouches for a bundle: Ed25519 signatures of its id, in a file beside the manifest.

    manifest.sig     a line a signature: "ed25519", the key's id, base64 of the 64 bytes

The id is the SHA-256 of the manifest, which holds that of every file: a signature of it vouches for
every byte, and is no part of them, so that signing changes no id. Several keys may sign, as they do
while one takes another's place. Keys are PEM files, as `openssl genpkey -algorithm ed25519` writes.

`cryptography` is imported only where a signature is made or checked.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mien.errors import BundleHashError, BundleSignatureError, ConfigError, UnsignedBundleError
from mien.whole_file import read_bounded, replace_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

_log = logging.getLogger(__name__)

SIGNATURES: Final = "manifest.sig"
MAX_SIGNATURES_BYTES: Final = 4096
MAX_SIGNATURES: Final = 16
MAX_KEYS: Final = 64
_MAX_KEY_BYTES: Final = 4096
# What is signed can be nothing else of this project, or of another that has the same key.
_CONTEXT: Final = b"mien bundle 1\n"
_LINE: Final = re.compile(r"ed25519 ([0-9a-f]{16}) ([A-Za-z0-9+/]{86}==)", re.ASCII)


class TrustedKeys:
    """The public keys of which one must have signed a bundle before anything of it is used.

    ids: of the keys, in order.
    """

    def __init__(self, keys: Mapping[str, Ed25519PublicKey]) -> None:
        self._keys = dict(keys)
        self.ids = tuple(sorted(self._keys))

    @classmethod
    def load(cls, folder: Path) -> TrustedKeys:
        """Read every *.pub of a folder. Raises ConfigError where there is none, or a wrong one."""
        paths = sorted(folder.glob("*.pub"))
        if not 1 <= len(paths) <= MAX_KEYS:
            raise ConfigError(
                f"bundle_keys must be a folder with 1 to {MAX_KEYS} public keys (*.pub), "
                f"{folder} has {len(paths)}; `mien bundles new-key` makes one"
            )
        return cls({key_id(key): key for key in map(_public_key, paths)})

    def check(self, bundle_id: str, signatures: bytes) -> str:
        """Return the id of the trusted key that has signed a bundle id.

        signatures: what manifest.sig holds. Raises UnsignedBundleError where it is empty,
        BundleSignatureError where no trusted key has signed, or one wrongly.
        """
        from cryptography.exceptions import InvalidSignature

        found = parse_signatures(signatures)
        if not found:
            raise UnsignedBundleError(
                f"bundle {bundle_id[:12]} is not signed; trusted are the keys {self._listed()}"
            )
        trusted = [name for name in self.ids if name in found]
        for name in trusted:
            try:
                self._keys[name].verify(found[name], _message(bundle_id))
            except InvalidSignature:
                raise BundleSignatureError(
                    f"the signature of bundle {bundle_id[:12]} by key {name} is wrong; "
                    "get the bundle again from who made it"
                ) from None
        if not trusted:
            raise BundleSignatureError(
                f"bundle {bundle_id[:12]} is signed by {', '.join(sorted(found))}; "
                f"trusted are the keys {self._listed()}"
            )
        return trusted[0]

    def _listed(self) -> str:
        return ", ".join(self.ids)


def trusted_keys(folder: Path | None) -> TrustedKeys | None:
    """The keys of a service's setting `bundle_keys`; says in the log what is trusted.

    None, for no folder: bundles need no signature. Raises ConfigError as `TrustedKeys.load` does.
    """
    if folder is None:
        _log.warning("bundles are taken from anyone, signed or not: no bundle_keys are given")
        return None
    keys = TrustedKeys.load(folder)
    _log.info("bundles must be signed by one of the keys %s of %s", ", ".join(keys.ids), folder)
    return keys


def key_id(key: Ed25519PublicKey) -> str:
    """What a key is called: 16 hexadecimal digits of the SHA-256 of its 32 bytes."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def parse_signatures(data: bytes) -> dict[str, bytes]:
    """Key id -> signature of 64 bytes. Raises BundleSignatureError for what is no manifest.sig."""
    if len(data) > MAX_SIGNATURES_BYTES:
        raise BundleSignatureError(f"{SIGNATURES} has at most {MAX_SIGNATURES_BYTES} bytes")
    found: dict[str, bytes] = {}
    lines = data.decode("ascii", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        match = _LINE.fullmatch(line)
        if match is None or match[1] in found or number > MAX_SIGNATURES:
            raise BundleSignatureError(
                f"line {number} of {SIGNATURES} must be one more key's signature, "
                f"of {MAX_SIGNATURES} at most; sign the bundle again"
            )
        try:
            found[match[1]] = base64.b64decode(match[2], validate=True)
        except binascii.Error as error:
            raise BundleSignatureError(f"line {number} of {SIGNATURES}: {error}") from error
    return found


def read_signatures(folder: Path) -> bytes:
    """What a bundle folder's manifest.sig holds, unchecked; empty where there is none.

    Raises BundleSignatureError for a file that is too large or cannot be read.
    """
    path = folder / SIGNATURES
    if not os.path.lexists(path):
        return b""
    try:
        return read_bounded(path, MAX_SIGNATURES_BYTES)
    except BundleHashError as error:
        raise BundleSignatureError(str(error)) from error


def sign(folder: Path, bundle_id: str, key_file: Path) -> str:
    """Add the key's signature of a bundle to its folder, or renew it; returns the key's id.

    The bundle must have been verified. Raises ConfigError for the key, BundleSignatureError for a
    manifest.sig that is none or cannot be written.
    """
    key = _private_key(key_file)
    name = key_id(key.public_key())
    signatures = parse_signatures(read_signatures(folder))
    signatures[name] = key.sign(_message(bundle_id))
    lines = (
        f"ed25519 {signer} {base64.b64encode(signature).decode()}\n"
        for signer, signature in sorted(signatures.items())
    )
    data = "".join(lines).encode()
    parse_signatures(data)
    try:
        replace_file(folder / SIGNATURES, data)
    except OSError as error:
        raise BundleSignatureError(f"{folder / SIGNATURES} cannot be written: {error}") from error
    return name


def make_key(path: Path) -> tuple[Path, str]:
    """Make a key pair: the private key in `path`, for its owner alone, the public one in PATH.pub.

    Returns the public key's file and id. Raises ConfigError where one of them is there already.
    """
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    public = path.with_name(f"{path.name}.pub")
    private_pem = key.private_bytes(
        form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()
    )
    public_pem = key.public_key().public_bytes(
        form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo
    )
    try:
        for file, pem, mode in ((path, private_pem, 0o600), (public, public_pem, 0o644)):
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(pem)
    except OSError as error:
        raise ConfigError(f"the key cannot be written: {error}") from error
    return public, key_id(key.public_key())


def _message(bundle_id: str) -> bytes:
    return _CONTEXT + bundle_id.encode()


def _public_key(path: Path) -> Ed25519PublicKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    key = _pem_key(path, load_pem_public_key)
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(f"{path} must hold an Ed25519 public key")
    return key


def _private_key(path: Path) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key = _pem_key(path, lambda data: load_pem_private_key(data, password=None))
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path} must hold an Ed25519 private key")
    return key


def _pem_key(path: Path, load: Any) -> object:
    """What a PEM file holds; what is wrong with it is said without a word of what it holds."""
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        return load(read_bounded(path, _MAX_KEY_BYTES))
    except BundleHashError as error:
        raise ConfigError(str(error)) from error
    except TypeError:
        raise ConfigError(f"{path} is encrypted: give a key without a passphrase") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError(f"{path} holds no key in PEM of the kind that is needed") from None
