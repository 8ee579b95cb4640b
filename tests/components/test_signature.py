"""Signatures of bundles, by the key of the project and by others."""

from __future__ import annotations

import subprocess

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from components import home
from components.deploy.config import DeployConfig
from components.errors import BundleError, ConfigError
from components.register.core import RegisterConfig
from components.signature import SigningKey, require
from components.store import LocalStore

DIGEST, OTHER = "a" * 64, "b" * 64


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path / "objects")


def sign(store, private, digest=DIGEST):
    key = SigningKey(private, "a test")
    key.sign(store, digest)
    return key


def pem_of(key, encryption=None):
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        encryption or serialization.NoEncryption(),
    ).decode()


def test_one_good_signature_by_a_trusted_key_is_enough(store, make_key):
    (old, old_public), (new, new_public), (_, third) = make_key(), make_key(), make_key()
    sign(store, old)
    require(store, DIGEST, [old_public])
    require(store, DIGEST, [third, new_public, old_public])  # while keys are rotated
    with pytest.raises(BundleError, match="is signed by"):
        require(store, DIGEST, [new_public])
    sign(store, new)
    require(store, DIGEST, [new_public])
    require(store, DIGEST, [old_public])


def test_where_no_key_is_trusted_nothing_is_asked(store):
    require(store, DIGEST, [])


def test_what_is_not_signed_is_refused_with_what_to_do(store, make_key):
    with pytest.raises(BundleError, match=r"is not signed, and .* sign it with tokiwa sign"):
        require(store, DIGEST, [make_key()[1]])


@pytest.mark.parametrize("wrong", [b"", b"nonsense", bytes(64), b"another bundle's"])
def test_a_wrong_signature_is_refused(store, make_key, wrong):
    private, public = make_key()
    name = sign(store, private, OTHER).name
    if wrong == b"another bundle's":
        wrong = store.get(f"signatures/{OTHER}/{name}.sig")
    store.put(f"signatures/{DIGEST}/{name}.sig", wrong)
    with pytest.raises(BundleError, match=f"has a wrong signature by key {name}"):
        require(store, DIGEST, [public])
    require(store, OTHER, [public])


def test_a_signature_in_the_name_of_another_key_is_refused(store, make_key):
    (ours, public), (theirs, _) = make_key(), make_key()
    forged = sign(store, theirs).name
    content = store.get(f"signatures/{DIGEST}/{forged}.sig")
    store.put(f"signatures/{DIGEST}/{SigningKey(ours, 'ours').name}.sig", content)
    with pytest.raises(BundleError, match="has a wrong signature"):
        require(store, DIGEST, [public])


def test_openssl_finds_the_signature_good(store, make_key, tmp_path):
    private, public = make_key()
    name = sign(store, private).name
    (tmp_path / "digest").write_text(DIGEST)
    (tmp_path / "public.pem").write_text(public)
    signature = store.local_path(f"signatures/{DIGEST}/{name}.sig")
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", "public.pem", "-rawin"]
    command += ["-in", "digest", "-sigfile", str(signature)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "Verified Successfully" in done.stdout, done


def test_what_is_no_private_key_is_refused_without_a_word_of_it(make_key):
    elliptic = pem_of(ec.generate_private_key(ec.SECP256R1()))
    locked = pem_of(Ed25519PrivateKey.generate(), serialization.BestAvailableEncryption(b"word"))
    for pem, says in (
        ("nonsense", "holds no private key in PEM"),
        (make_key()[1], "holds no private key in PEM"),
        (locked, "without a password"),
        (elliptic, "none of Ed25519"),
    ):
        with pytest.raises(ConfigError, match=says) as caught:
            SigningKey(pem, "TOKIWA_KEY")
        assert all(line not in str(caught.value) for line in pem.splitlines()[1:-1])


def test_what_is_no_public_key_is_refused_when_the_project_is_read(make_key):
    elliptic = ec.generate_private_key(ec.SECP256R1()).public_key()
    other = elliptic.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    for pem, says in (
        ("nonsense", "is no public key in PEM"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "is no public key in PEM"),
        (make_key()[0], "is a private key, which belongs into no project file"),
        (other.decode(), "is no public key of Ed25519"),
    ):
        with pytest.raises(ValueError, match=says):
            DeployConfig(trusted_keys=[pem])
    assert DeployConfig(trusted_keys=[f"\n  {make_key()[1]}\n"]).trusted_keys[0].startswith("---")


def test_the_key_comes_from_the_environment_or_from_a_file(make_key, monkeypatch, tmp_path):
    private, _ = make_key()
    assert home.signing_key("") is None
    with pytest.raises(ConfigError, match="TOKIWA_KEY, which is not set here"):
        home.signing_key("TOKIWA_KEY")
    monkeypatch.setenv("TOKIWA_KEY", private)
    key = home.signing_key("TOKIWA_KEY")
    assert key is not None
    (tmp_path / "key.pem").write_text(private)
    monkeypatch.setenv("TOKIWA_KEY", str(tmp_path / "key.pem"))
    again = home.signing_key("TOKIWA_KEY")
    assert again is not None
    assert again.name == key.name
    for value in (str(tmp_path / "none.pem"), str(tmp_path)):
        monkeypatch.setenv("TOKIWA_KEY", value)
        with pytest.raises(ConfigError, match="names a file that cannot be read"):
            home.signing_key("TOKIWA_KEY")


@pytest.mark.parametrize("name", ["-----BEGIN PRIVATE KEY-----", "SECRET", "tokiwa_key", "A B"])
def test_the_project_names_a_variable_and_never_holds_the_key(name):
    with pytest.raises(ValueError, match="signing_key_env"):
        RegisterConfig(signing_key_env=name)
