"""JSON Web Tokens (RFC 7519) of consumers and operators, checked by PyJWT."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import jwt
from cryptography.exceptions import UnsupportedAlgorithm

from cloud_recognizer.caller import Caller
from mien.errors import CertificateError, UnauthenticatedError
from mien.followed import MAX_FILE_BYTES, Followed
from mien.identity import Identity, Role
from mien.whole_file import read_bounded

# Signatures with a public key only: a secret that checks tokens could also make them.
ALGORITHMS: Final = ("RS256", "PS256", "ES256", "EdDSA")
MAX_TOKEN_CHARS: Final = 8192
ROLES: Final = frozenset({Role.CONSUMER, Role.OPERATOR})
# Where the file holds one key and no key id, every token is checked with it.
_ONLY: Final = ""
# What reading JSON of somebody else's may raise beside the library's own errors.
HOSTILE: Final = (ValueError, TypeError, OverflowError, RecursionError)


@dataclass(frozen=True)
class KeyFile:
    """A file of public keys: one as PEM, or a JWKS (RFC 7517) whose keys have ids."""

    path: Path

    @property
    def paths(self) -> tuple[Path, ...]:
        """The one file."""
        return (self.path,)

    def read(self) -> Mapping[str, Any]:
        """Key id → key. Raises CertificateError for a file that holds no keys, or private ones."""
        return _load(self.path)


class Tokens:
    """Checks tokens by the keys in a file, which is followed.

    A token must have exp, aud, sub (the name) and role (consumer or operator), and iss where an
    issuer is given. on_refused: see `Followed`. Raises CertificateError as `KeyFile.read`.
    """

    def __init__(
        self,
        keys: Path,
        audience: str,
        issuer: str | None,
        on_refused: Callable[[], None] = lambda: None,
    ) -> None:
        self._keys = Followed(KeyFile(keys), on_refused)
        self._audience = audience
        self._issuer = issuer

    def caller(self, token: str) -> Caller:
        """Whose token it is, and until when.

        Raises UnauthenticatedError, which says nothing of what the token holds.
        """
        if len(token) > MAX_TOKEN_CHARS:
            raise UnauthenticatedError(f"a token may have {MAX_TOKEN_CHARS} characters")
        keys = self._keys.current()
        try:
            claims = jwt.decode(
                token,
                _key(keys, token),
                algorithms=list(ALGORITHMS),
                audience=self._audience,
                issuer=self._issuer,
                options={
                    "require": ["exp", "aud", "sub", *(["iss"] if self._issuer else [])],
                    # When it was issued forbids nothing, and the issuer's clock may be ahead.
                    "verify_iat": False,
                },
            )
            ends_unix_s = float(int(claims["exp"]))
        except (jwt.PyJWTError, *HOSTILE) as error:
            # The class alone: some messages of the library quote the token.
            raise UnauthenticatedError(
                f"the token is not accepted ({type(error).__name__}); get a new one, for the "
                f"audience {self._audience!r}"
            ) from None
        return Caller(_identity(claims), ends_unix_s)


def _key(keys: Mapping[str, Any], token: str) -> Any:
    if _ONLY in keys:
        return keys[_ONLY]
    kid = jwt.get_unverified_header(token).get("kid")
    if not isinstance(kid, str) or kid not in keys:
        raise jwt.InvalidKeyError("no such key")
    return keys[kid]


def _identity(claims: Mapping[str, Any]) -> Identity:
    try:
        identity = Identity(Role(claims.get("role")), str(claims["sub"]))
    except ValueError:
        identity = None
    if identity is None or identity.role not in ROLES:
        raise UnauthenticatedError(
            "a token must have the claim role, consumer or operator, and a sub of letters, digits, "
            "'.', '_' and '-'; devices come with certificates"
        )
    return identity


def _load(path: Path) -> dict[str, Any]:
    data = read_bounded(path, MAX_FILE_BYTES, CertificateError)
    try:
        if not data.lstrip().startswith(b"{"):
            from cryptography.hazmat.primitives.serialization import load_pem_public_key

            return {_ONLY: load_pem_public_key(data)}
        keys = jwt.PyJWKSet.from_dict(json.loads(data)).keys
        named = {key.key_id: key.key for key in keys if key.key_id and key.public_key_use != "enc"}
        # A symmetric key is bytes; both kinds could make tokens, too.
        secret = any(isinstance(x, bytes) or hasattr(x, "private_bytes") for x in named.values())
    except (KeyError, UnsupportedAlgorithm, jwt.PyJWTError, *HOSTILE) as error:
        raise CertificateError(
            f"{path} holds neither a public key in PEM form nor a JWKS: {type(error).__name__}"
        ) from None
    if not named or secret:
        raise CertificateError(f"{path} must hold public keys only, each with a kid")
    return named
