"""Who may ask: bearer tokens from a file, and tokens that an OpenID provider signed.

Both files are read again when they change, so that a token can be rotated under a running
server. A file that cannot be read lets nobody in who was not let in before.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

from components.errors import ConfigError
from components.serve.config import AccessConfig
from components.serve.refusal import Refused

log = logging.getLogger(__name__)

_LOOK_S = 1.0
"""Between looks at whether a file has changed."""
_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"]
"""Signatures with a key pair; one with a shared secret could be made from the public keys."""
_LEEWAY_S = 30
_NOTE = re.compile(r"(^|\s)#.*")
"""In a file of tokens; within a token, ``#`` is part of it."""
_MIN_TOKEN = 16
_REMEMBERED = 1024

Content = TypeVar("Content")


class _Followed(Generic[Content]):
    """What a file holds, read again when it changes."""

    def __init__(self, path: Path, read: Callable[[str], Content]) -> None:
        self._path, self._read = path, read
        self._looked_s = time.monotonic()
        self._stamp, self._trouble = self._stamped(), ""
        try:
            self.content = read(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"serve.access: {path} cannot be used: {error}") from error

    def look(self) -> bool:
        """Read the file again if it has changed; tell whether it was."""
        now_s = time.monotonic()
        if now_s - self._looked_s < _LOOK_S:
            return False
        self._looked_s = now_s
        if (stamp := self._stamped()) == self._stamp:
            return False
        try:
            self.content = self._read(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            if str(error) != self._trouble:
                log.warning("%s cannot be used, its last content goes on: %s", self._path, error)
            self._trouble = str(error)
            return False
        self._stamp, self._trouble = stamp, ""
        log.info("read %s again", self._path)
        return True

    def _stamped(self) -> tuple[int, int, int]:
        try:
            about = self._path.stat()
        except OSError:
            return (0, 0, 0)
        return (about.st_mtime_ns, about.st_size, about.st_ino)


class Access:
    """Tells who may ask."""

    def __init__(self, config: AccessConfig) -> None:
        """Read the files that the section names.

        Raises:
            ConfigError: one cannot be read, or holds nothing that can be used.
        """
        self._config = config
        self._tokens = (
            _Followed(Path(config.tokens_file), _token_digests) if config.tokens_file else None
        )
        self._keys = _Followed(Path(config.jwks_file), _key_set) if config.jwks_file else None
        self._signed: dict[bytes, float] = {}

    @property
    def is_open(self) -> bool:
        """Whether everybody may ask who can reach the port."""
        return self._config.is_open

    def check(self, authorization: str | None) -> None:
        """Let a request pass by its ``Authorization`` header.

        Raises:
            Refused: with status 401.
        """
        if self.is_open:
            return
        scheme, _, token = (authorization or "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise Refused(401, "send a token: Authorization: Bearer <token>")
        given = hashlib.sha256(token.encode()).digest()
        if self._is_listed(given) or self._is_signed(token, given):
            return
        raise Refused(401, "the token is not valid here, or no longer")

    def _is_listed(self, given: bytes) -> bool:
        if self._tokens is None:
            return False
        self._tokens.look()
        # All are compared, each in constant time: nothing is told by how long it takes.
        return sum(hmac.compare_digest(given, known) for known in self._tokens.content) > 0

    def _is_signed(self, token: str, given: bytes) -> bool:
        if self._keys is None:
            return False
        if self._keys.look():
            self._signed.clear()
        if self._signed.get(given, 0.0) > time.time():
            return True
        if (until_s := self._verified_until(token, self._keys.content)) is None:
            return False
        if len(self._signed) >= _REMEMBERED:
            self._signed.clear()
        self._signed[given] = until_s
        return True

    def _verified_until(self, token: str, keys: Any) -> float | None:
        """Return when a signed token expires; None for one that is not good."""
        import jwt

        try:
            kid = jwt.get_unverified_header(token).get("kid")
            for key in keys.keys:
                if kid is not None and key.key_id is not None and key.key_id != kid:
                    continue
                try:
                    claims = jwt.decode(
                        token,
                        key,
                        algorithms=_ALGORITHMS,
                        audience=self._config.audience,
                        issuer=self._config.issuer,
                        leeway=_LEEWAY_S,
                        options={"require": ["exp", "aud", "iss"]},
                    )
                except (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError, jwt.InvalidKeyError):
                    continue
                return float(claims["exp"]) + _LEEWAY_S
        # What is sent may be nested too deeply, or hold numbers that are too large.
        except (jwt.PyJWTError, ValueError, OverflowError, RecursionError):
            return None
        return None


def _token_digests(text: str) -> list[bytes]:
    lines = [_NOTE.sub("", line).strip() for line in text.splitlines()]
    tokens = [line for line in lines if line]
    if not tokens:
        raise ValueError("it holds no token")
    if short := [number for number, token in enumerate(tokens, 1) if len(token) < _MIN_TOKEN]:
        raise ValueError(f"token {short[0]} has fewer than {_MIN_TOKEN} characters")
    if strange := [number for number, token in enumerate(tokens, 1) if not token.isascii()]:
        raise ValueError(f"token {strange[0]} has other characters than ASCII")
    return [hashlib.sha256(token.encode()).digest() for token in tokens]


def _key_set(text: str) -> Any:
    import jwt

    try:
        return jwt.PyJWKSet.from_dict(json.loads(text))
    except (jwt.PyJWTError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"it holds no keys: {error}") from error
