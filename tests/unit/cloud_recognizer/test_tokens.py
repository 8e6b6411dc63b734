"""Tokens: the keys that check them, and what is said of one that is not good."""

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from cloud_recognizer.tokens import MAX_TOKEN_CHARS, Tokens
from mien.errors import CertificateError, UnauthenticatedError
from mien.identity import Identity, Role
from tests.support.certificates import TokenIssuer

SHOP = Identity(Role.CONSUMER, "shop")
RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()


def claims(**more: Any) -> dict[str, Any]:
    end = datetime.now(UTC) + timedelta(hours=1)
    return {"sub": "shop", "role": "consumer", "aud": "mien", "exp": end} | more


def key_set(**keys: str) -> str:
    """A JWKS: key id → a JWK as JSON."""
    return json.dumps({"keys": [json.loads(key) | {"kid": kid} for kid, key in keys.items()]})


@pytest.fixture
def jwks(tmp_path: Path) -> Path:
    path = tmp_path / "jwks.json"
    path.write_text(
        key_set(
            r=RSAAlgorithm.to_jwk(RSA.public_key()),
            e=ECAlgorithm.to_jwk(EC.public_key()),
            o=OKPAlgorithm.to_jwk(ED.public_key()),
        )
    )
    return path


@pytest.mark.parametrize(
    ("kid", "key", "algorithm"),
    [("r", RSA, "RS256"), ("r", RSA, "PS256"), ("e", EC, "ES256"), ("o", ED, "EdDSA")],
)
def test_each_key_of_a_set_checks_the_tokens_that_name_it(
    jwks: Path, kid: str, key: Any, algorithm: str
) -> None:
    tokens = Tokens(jwks, "mien", None)
    good = jwt.encode(claims(), key, algorithm=algorithm, headers={"kid": kid})
    assert tokens.identity(good) == SHOP
    for headers in ({"kid": "another"}, {}, {"kid": "r" if kid != "r" else "e"}):
        token = jwt.encode(claims(), key, algorithm=algorithm, headers=headers)
        with pytest.raises(UnauthenticatedError, match="not accepted"):
            tokens.identity(token)


def test_neither_an_unsigned_token_nor_one_signed_with_the_public_key_is_accepted(
    tmp_path: Path,
) -> None:
    issuer = TokenIssuer(tmp_path)
    tokens = Tokens(issuer.path, "mien", None)
    assert tokens.identity(issuer.token()) == SHOP
    unsigned = jwt.encode(claims(), None, algorithm="none")
    # By hand: the library refuses to sign with a public key, which an attacker would not.
    header, body, _ = issuer.token().split(".")
    weak = jwt.utils.base64url_encode(b'{"alg":"HS256","typ":"JWT"}').decode()
    mac = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    signature = mac.sign(f"{weak}.{body}".encode(), issuer.path.read_bytes())
    confused = f"{weak}.{body}.{jwt.utils.base64url_encode(signature).decode()}"
    changed = f"{header}.{jwt.utils.base64url_encode(b'{}').decode()}.{confused.split('.')[2]}"
    for token in (unsigned, confused, changed, "", "a.b.c", "x" * (MAX_TOKEN_CHARS + 1)):
        with pytest.raises(UnauthenticatedError):
            tokens.identity(token)


@pytest.mark.parametrize(
    "wrong",
    [
        *(
            {"aud": "other"},
            {"aud": None},
            {"exp": 1},
            {"exp": None},
            {"iss": "eve"},
            {"iss": None},
        ),
        *({"sub": None}, {"sub": "a/b"}, {"sub": ""}, {"role": "device"}, {"role": "root"}),
        *({"role": None}, {"role": ["operator"]}, {"nbf": datetime.now(UTC) + timedelta(hours=1)}),
    ],
)
def test_every_claim_counts_and_nothing_of_the_token_is_said(
    tmp_path: Path, wrong: dict[str, Any]
) -> None:
    issuer = TokenIssuer(tmp_path)
    tokens = Tokens(issuer.path, "mien", "https://issuer.example")
    right = {"iss": "https://issuer.example", "note": "personal"}
    assert tokens.identity(issuer.token(**right, role="operator")).role is Role.OPERATOR
    token = issuer.token(**(right | wrong))
    with pytest.raises(UnauthenticatedError) as raised:
        tokens.identity(token)
    said = str(raised.value)
    assert not any(part in said for part in (*token.split("."), "personal", "eve", "root"))


def test_new_keys_are_followed_and_bad_ones_change_nothing(tmp_path: Path) -> None:
    old = TokenIssuer(tmp_path)
    tokens = Tokens(old.path, "mien", None)
    (tmp_path / "new").mkdir()
    new = TokenIssuer(tmp_path / "new")
    old.path.write_text("no key")
    assert tokens.identity(old.token()) == SHOP
    os.replace(new.path, old.path)  # noqa: PTH105
    assert tokens.identity(new.token()) == SHOP
    with pytest.raises(UnauthenticatedError):
        tokens.identity(old.token())
    old.path.unlink()
    assert tokens.identity(new.token()) == SHOP


@pytest.mark.parametrize(
    "text",
    [
        *("", "no key", "{", "[]", '{"keys": []}', '{"keys": 5}', '{"keys": [5]}'),
        # A secret, and a key without an id beside which others could not be told apart.
        '{"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "a"}]}',
        json.dumps({"keys": [json.loads(ECAlgorithm.to_jwk(EC.public_key()))]}),
        # A private key has no business here.
        key_set(a=ECAlgorithm.to_jwk(EC)),
    ],
)
def test_a_file_that_holds_no_public_keys_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys.json"
    path.write_text(text)
    with pytest.raises(CertificateError, match=r"keys\.json"):
        Tokens(path, "mien", None)
    with pytest.raises(CertificateError, match="nowhere"):
        Tokens(tmp_path / "nowhere", "mien", None)
