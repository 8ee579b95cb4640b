from __future__ import annotations

import base64
import json
import time

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from components.errors import ConfigError
from components.serve import access
from components.serve.access import Access
from components.serve.config import AccessConfig
from components.serve.refusal import Refused

TOKEN, OTHER = "a-token-of-good-length", "another-token-of-good-length"


@pytest.fixture(autouse=True)
def looks_at_once(monkeypatch):
    monkeypatch.setattr(access, "_LOOK_S", 0.0)


def refused(guard, authorization):
    with pytest.raises(Refused) as caught:
        guard.check(authorization)
    assert caught.value.status == 401
    assert caught.value.headers == {"www-authenticate": "Bearer"}
    return str(caught.value)


def test_without_files_everybody_may_ask():
    guard = Access(AccessConfig())
    assert guard.is_open
    guard.check(None)


def test_several_tokens_are_let_in_and_rotated_under_way(tmp_path):
    file = tmp_path / "tokens"
    file.write_text(f"# of the shop\n{TOKEN}\n\n{OTHER}  # of the app\n")
    guard = Access(AccessConfig(tokens_file=str(file)))
    guard.check(f"Bearer {TOKEN}")
    guard.check(f"bearer {OTHER}")
    for wrong in (None, "", "Bearer", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer é", TOKEN):
        refused(guard, wrong)
    file.write_text(f"{OTHER}\n")
    refused(guard, f"Bearer {TOKEN}")
    guard.check(f"Bearer {OTHER}")
    file.unlink()  # what was let in goes on, and nobody else
    guard.check(f"Bearer {OTHER}")
    refused(guard, f"Bearer {TOKEN}")


def test_a_file_that_stays_bad_is_told_once(tmp_path, caplog):
    file = tmp_path / "tokens"
    file.write_text(f"{TOKEN}#1  # of the shop\n")
    guard = Access(AccessConfig(tokens_file=str(file)))
    refused(guard, f"Bearer {TOKEN}")
    file.write_text("")
    for _ in range(3):
        guard.check(f"Bearer {TOKEN}#1")
    assert [each.levelname for each in caplog.records] == ["WARNING"]


@pytest.mark.parametrize(
    ("content", "says"),
    [("# none\n", "no token"), ("short\n", "16"), ("schlüssel-mit-umlaut\n", "ASCII")],
)
def test_files_that_would_let_nobody_or_anybody_in_are_refused(tmp_path, content, says):
    file = tmp_path / "tokens"
    file.write_text(content)
    with pytest.raises(ConfigError, match=says):
        Access(AccessConfig(tokens_file=str(file)))
    with pytest.raises(ConfigError, match="cannot be used"):
        Access(AccessConfig(tokens_file=str(tmp_path / "absent")))


DEEP = base64.urlsafe_b64encode(b"[" * 100_000).decode()


def key_set(*keys):
    public = []
    for name, key in keys:
        about = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key()))
        public.append({**about, "kid": name, "alg": "ES256"})
    return json.dumps({"keys": public})


def signed(key, kid="one", **changes):
    claims = {"aud": "tokiwa", "iss": "https://id.example", "exp": time.time() + 300} | changes
    claims = {name: value for name, value in claims.items() if value is not None}
    return "Bearer " + jwt.encode(claims, key, algorithm="ES256", headers={"kid": kid})


def test_signed_tokens_are_checked_wholly(tmp_path):
    key, strange = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    file = tmp_path / "jwks.json"
    file.write_text(key_set(("one", key)))
    config = AccessConfig(jwks_file=str(file), audience="tokiwa", issuer="https://id.example")
    guard = Access(config)
    good = signed(key)
    guard.check(good)
    guard.check(good)
    for wrong in (
        signed(key, exp=time.time() - 300),
        signed(key, exp=None),
        signed(key, aud="other"),
        signed(key, aud=None),
        signed(key, iss="https://evil.example"),
        signed(key, nbf=time.time() + 300),
        signed(strange),
        signed(key, kid="two"),
        good[:-4] + "AAAA",
        "Bearer a.b.c",
        f"Bearer {DEEP}.{DEEP}.AAAA",
        signed(key, exp=10**400),
        signed(key, exp="soon"),
        "Bearer " + jwt.encode({"aud": "tokiwa"}, "", algorithm="none"),
        "Bearer "
        + jwt.encode(
            {"aud": "tokiwa", "iss": "https://id.example", "exp": time.time() + 300},
            "x" * 32,
            algorithm="HS256",
            headers={"kid": "one"},
        ),
    ):
        refused(guard, wrong)
    file.write_text(key_set(("two", strange)))
    guard.check(signed(strange, kid="two"))
    refused(guard, good)


def test_a_key_set_needs_to_know_for_whom(tmp_path):
    with pytest.raises(ValueError, match="audience and issuer"):
        AccessConfig(jwks_file="x")
    with pytest.raises(ValueError, match="jwks_file"):
        AccessConfig(audience="x")
    file = tmp_path / "jwks.json"
    for content in ("{}", "[]", '{"keys": []}', "no json", '{"keys": [{"kty": "x"}]}'):
        file.write_text(content)
        with pytest.raises(ConfigError, match="cannot be used"):
            Access(AccessConfig(jwks_file=str(file), audience="a", issuer="b"))
