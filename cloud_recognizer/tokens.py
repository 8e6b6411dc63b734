"""JSON Web Tokens (RFC 7519) of consumers and operators, checked by PyJWT."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import jwt

from mien.errors import CertificateError, UnauthenticatedError
from mien.identity import Identity, Role
from mien.tls import signature_of

_log = logging.getLogger(__name__)

# Signatures with a public key only: a secret that checks tokens could also make them.
ALGORITHMS: Final = ("RS256", "PS256", "ES256", "EdDSA")
MAX_TOKEN_CHARS: Final = 8192
ROLES: Final = frozenset({Role.CONSUMER, Role.OPERATOR})
# Where the file holds one key and no key id, every token is checked with it.
_ONLY: Final = ""


class Tokens:
    """Checks tokens by the keys in a file: one public key as PEM, or a JWKS (RFC 7517).

    A token must have exp, aud, sub (the name) and role (consumer or operator), and iss where an
    issuer is given. Raises CertificateError for a file that holds no keys; a file that is changed
    is read anew, and a bad one leaves the keys as they were.
    """

    def __init__(self, keys: Path, audience: str, issuer: str | None) -> None:
        self._path = keys
        self._audience = audience
        self._issuer = issuer
        self._seen = signature_of(keys)
        self._keys = _load(keys)

    def identity(self, token: str) -> Identity:
        """Whose token it is. Raises UnauthenticatedError, which says nothing of what it holds."""
        if len(token) > MAX_TOKEN_CHARS:
            raise UnauthenticatedError(f"a token may have {MAX_TOKEN_CHARS} characters")
        self._follow()
        try:
            claims = jwt.decode(
                token,
                self._key(token),
                algorithms=list(ALGORITHMS),
                audience=self._audience,
                issuer=self._issuer,
                options={"require": ["exp", "aud", "sub", *(["iss"] if self._issuer else [])]},
            )
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            # The class alone: some messages of the library quote the token.
            raise UnauthenticatedError(
                f"the token is not accepted ({type(error).__name__}); get a new one, for the "
                f"audience {self._audience!r}"
            ) from None
        return _identity(claims)

    def _key(self, token: str) -> Any:
        if _ONLY in self._keys:
            return self._keys[_ONLY]
        kid = jwt.get_unverified_header(token).get("kid")
        if not isinstance(kid, str) or kid not in self._keys:
            raise jwt.InvalidKeyError("no such key")
        return self._keys[kid]

    def _follow(self) -> None:
        if (seen := signature_of(self._path)) == self._seen:
            return
        self._seen = seen
        try:
            self._keys = _load(self._path)
        except CertificateError as error:
            _log.error("the keys of tokens stay as they were: %s", error)


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
    try:
        data = path.read_bytes()
        if not data.lstrip().startswith(b"{"):
            from cryptography.hazmat.primitives.serialization import load_pem_public_key

            return {_ONLY: load_pem_public_key(data)}
        keys = jwt.PyJWKSet.from_dict(json.loads(data)).keys
        named = {key.key_id: key.key for key in keys if key.key_id and key.public_key_use != "enc"}
        # A symmetric key is bytes; both kinds could make tokens, too.
        secret = any(isinstance(x, bytes) or hasattr(x, "private_bytes") for x in named.values())
    except (OSError, ValueError, TypeError, KeyError, jwt.PyJWTError) as error:
        raise CertificateError(
            f"{path} holds neither a public key in PEM form nor a JWKS: {type(error).__name__}"
        ) from None
    if not named or secret:
        raise CertificateError(f"{path} must hold public keys only, each with a kid")
    return named
