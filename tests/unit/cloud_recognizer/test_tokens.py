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
    assert tokens.caller(good).identity == SHOP
    for headers in ({"kid": "another"}, {}, {"kid": "r" if kid != "r" else "e"}):
        token = jwt.encode(claims(), key, algorithm=algorithm, headers=headers)
        with pytest.raises(UnauthenticatedError, match="not accepted"):
            tokens.caller(token)


def test_neither_an_unsigned_token_nor_one_signed_with_the_public_key_is_accepted(
    tmp_path: Path,
) -> None:
    issuer = TokenIssuer(tmp_path)
    tokens = Tokens(issuer.path, "mien", None)
    assert tokens.caller(issuer.token()).identity == SHOP
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
            tokens.caller(token)


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
    assert tokens.caller(issuer.token(**right, role="operator")).identity.role is Role.OPERATOR
    token = issuer.token(**(right | wrong))
    with pytest.raises(UnauthenticatedError) as raised:
        tokens.caller(token)
    said = str(raised.value)
    assert not any(part in said for part in (*token.split("."), "personal", "eve", "root"))


def signed(text: str, issuer: TokenIssuer) -> str:
    """A token of the issuer's whose claims are a text, whatever it is."""
    return jwt.api_jws.encode(text.encode(), issuer.key, algorithm="ES256")


@pytest.mark.parametrize(
    "header",
    [
        *(b"[" * 5000, b'{"a":' * 800 + b"1" + b"}" * 800, b"\xff", b"null", b"[]", b'"x"'),
        *(b'{"alg":[]}', b'{"alg":1e999}', b'{"alg":"ES256","kid":{}}', b'{"kid":"e"}'),
        b'{"alg":"ES256","kid":"e","crit":["b64"],"b64":false}',
        *(b'{"alg":"%s","kid":"%s"}' % (a, k) for a in (b"RS256", b"EdDSA") for k in (b"e", b"r")),
    ],
)
def test_a_hostile_header_is_refused_and_nothing_else_comes_of_it(
    jwks: Path, tmp_path: Path, header: bytes
) -> None:
    head = jwt.utils.base64url_encode(header).decode()
    for keys in (jwks, TokenIssuer(tmp_path).path):
        for body in (b"{}", b"[" * 500, b"\xff"):
            rest = jwt.utils.base64url_encode(body).decode()
            with pytest.raises(UnauthenticatedError, match="not accepted"):
                Tokens(keys, "mien", None).caller(f"{head}.{rest}.{'A' * 86}")


@pytest.mark.parametrize("end", ["1e999", f"1{'0' * 400}", "{}", '"soon"', "true", "-1"])
def test_an_end_that_is_no_time_is_refused_though_it_is_signed(tmp_path: Path, end: str) -> None:
    issuer = TokenIssuer(tmp_path)
    text = '{"sub": "shop", "role": "consumer", "aud": "mien", "exp": %s}'
    assert Tokens(issuer.path, "mien", None).caller(signed(text % "4e9", issuer)).ends_unix_s == 4e9
    with pytest.raises(UnauthenticatedError, match="not accepted"):
        Tokens(issuer.path, "mien", None).caller(signed(text % end, issuer))


def test_a_token_of_an_issuer_whose_clock_is_ahead_is_accepted(tmp_path: Path) -> None:
    issuer = TokenIssuer(tmp_path)
    issued = datetime.now(UTC) + timedelta(seconds=30)
    assert Tokens(issuer.path, "mien", None).caller(issuer.token(iat=issued)).identity == SHOP


def test_new_keys_are_followed_and_bad_ones_change_nothing(tmp_path: Path) -> None:
    old = TokenIssuer(tmp_path)
    tokens = Tokens(old.path, "mien", None)
    (tmp_path / "new").mkdir()
    new = TokenIssuer(tmp_path / "new")
    old.path.write_text("no key")
    assert tokens.caller(old.token()).identity == SHOP
    os.replace(new.path, old.path)  # noqa: PTH105
    assert tokens.caller(new.token()).identity == SHOP
    with pytest.raises(UnauthenticatedError):
        tokens.caller(old.token())
    old.path.unlink()
    assert tokens.caller(new.token()).identity == SHOP


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
