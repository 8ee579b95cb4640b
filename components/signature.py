"""Signatures of bundles: Ed25519 (RFC 8032) over the digest of a bundle's manifest.

::

    signatures/{digest}/{key id}.sig     64 bytes, beside the bundle and never part of it

The manifest has the sha256 of every file, and its own sha256 names the bundle. So whoever signs
those 64 hex digits signs all of it, and a bundle may get further signatures later, by other keys.
Whoever can write to the store can replace bundle, ledger and signature, but cannot make a
signature that a key of the project has made. ::

    printf %s DIGEST > digest
    openssl pkeyutl -verify -pubin -inkey public.pem -rawin -in digest -sigfile KEY-ID.sig
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator

from components.errors import BundleError, ConfigError
from components.store import ObjectMissing, Store

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

_PUBLIC, _PRIVATE = "-----BEGIN PUBLIC KEY-----", "PRIVATE KEY-----"


def checked_public_key(pem: str) -> str:
    """Return a public key if it is one of Ed25519, in PEM.

    Raises:
        ValueError: it is none; never quotes it, for it may be a private key.
    """
    _public(pem)
    return pem.strip()


PublicKey = Annotated[str, AfterValidator(checked_public_key)]
"""Field of a section: a public key in PEM, as ``openssl pkey -pubout`` writes it."""


class SigningKey:
    """A private key that signs bundles.

    Attributes:
        name: id of its public key: 16 hex digits of that one's sha256.
    """

    def __init__(self, pem: str, source: str) -> None:
        """Read the key.

        Args:
            pem: of an unencrypted Ed25519 private key (PKCS #8).
            source: where it comes from, for messages.

        Raises:
            ConfigError: it is no such key.
        """
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            key = load_pem_private_key(pem.encode(), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise ConfigError(
                f"{source} holds no private key in PEM that can be read without a password"
            ) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise ConfigError(
                f"{source} holds a key that is none of Ed25519; make one: "
                "openssl genpkey -algorithm ed25519 -out signing.pem"
            )
        self._key: Ed25519PrivateKey = key
        self.name = _name(key.public_key())

    def sign(self, store: Store, digest: str) -> None:
        """Sign a published bundle; doing it again changes nothing."""
        store.put(_place(digest, self.name), self._key.sign(digest.encode()))


def require(store: Store, digest: str, trusted: Sequence[str]) -> None:
    """Refuse a bundle that no trusted key has signed; where none is named, all are good.

    Args:
        store: where the bundle is published.
        digest: of its manifest. That its files are those of the manifest is for
            ``bundle.verify``.
        trusted: public keys in PEM; one good signature is enough.

    Raises:
        BundleError: there is no signature by any of them, or it is another bundle's.
    """
    from cryptography.exceptions import InvalidSignature

    if not trusted:
        return
    wrong = []
    for pem in trusted:
        key = _public(pem)
        try:
            key.verify(store.get(_place(digest, _name(key))), digest.encode())
        except ObjectMissing:
            continue
        except InvalidSignature:
            wrong.append(_name(key))
        else:
            return
    if wrong:
        raise BundleError(f"bundle {digest[:12]} has a wrong signature by key {wrong[0]}")
    found = store.list(f"signatures/{digest}/")
    others = [key.rpartition("/")[2].removesuffix(".sig") for key in found]
    signed = f"is signed by {', '.join(others)} only" if others else "is not signed"
    names = ", ".join(_name(_public(pem)) for pem in trusted)
    raise BundleError(
        f"bundle {digest[:12]} {signed}, and the project trusts {names}; sign it with tokiwa sign"
    )


def _place(digest: str, name: str) -> str:
    return f"signatures/{digest}/{name}.sig"


def _name(key: Ed25519PublicKey) -> str:
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def _public(pem: str) -> Ed25519PublicKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    if _PRIVATE in pem:
        raise ValueError("is a private key, which belongs into no project file; replace it")
    try:
        key = load_pem_public_key(pem.strip().encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError(f"is no public key in PEM; it begins with {_PUBLIC}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("is no public key of Ed25519")
    return key
