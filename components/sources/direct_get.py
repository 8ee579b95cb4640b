"""Small objects of S3, fetched with as little work as their signature takes."""

from __future__ import annotations

import hashlib
import hmac
import ssl
import weakref
from collections import deque
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass

TIMEOUT_S = 60
_OF_NOTHING = hashlib.sha256(b"").hexdigest()


class DirectGet:
    """Gets the objects of a bucket over connections that are kept; for any number of threads."""

    def __init__(self, address: str, region: str, credentials: Any) -> None:
        """Name the place; nothing is sent yet.

        Args:
            address: of the bucket, to which a key is added.
            region: of the bucket.
            credentials: botocore's, which it may refresh.
        """
        self._address, self._region, self._credentials = address, region, credentials
        self._idle: deque[HTTPConnection] = deque()
        self._is_open = True
        weakref.finalize(self, _close, self._idle)

    @classmethod
    def of(cls, client: Any, bucket: str) -> DirectGet | None:
        """Return one that asks the server that a client asks; None where a proxy is between."""
        import boto3

        address = client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"})
        address = address.partition("?")[0].removesuffix("k")
        parts = urlsplit(address)
        if getproxies().get(parts.scheme) and not proxy_bypass(parts.hostname or ""):
            return None
        credentials = boto3.session.Session().get_credentials()
        return cls(address, client.meta.region_name, credentials) if credentials else None

    def get(self, key: str, etag: str) -> bytes | None:
        """Return an object of this etag; None if that did not go well, for whatever reason."""
        if not self._is_open:
            return None
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._connection()
            try:
                connection.connect()
            except OSError:
                self._is_open = False  # so that not every object waits for it
                return None
        address = self._address + quote(key, safe="/~")
        headers = signed(
            address,
            {"if-match": f'"{etag}"'},
            self._region,
            self._credentials.get_frozen_credentials(),
            datetime.now(UTC),
        )
        try:
            connection.request("GET", urlsplit(address).path, headers=headers)
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, HTTPException):
            connection.close()
            return None
        self._idle.append(connection)
        return content if answer.status == 200 else None

    def _connection(self) -> HTTPConnection:
        parts = urlsplit(self._address)
        assert parts.hostname
        if parts.scheme == "https":
            context = ssl.create_default_context()
            return HTTPSConnection(parts.hostname, parts.port, timeout=TIMEOUT_S, context=context)
        return HTTPConnection(parts.hostname, parts.port, timeout=TIMEOUT_S)


def signed(
    address: str, headers: dict[str, str], region: str, credentials: Any, at: datetime
) -> dict[str, str]:
    """Return the headers of a GET from S3 with its signature.

    AWS Signature Version 4, "Authenticating Requests: Using the Authorization Header" in the
    Amazon S3 API Reference.

    Args:
        address: of the object, with its key quoted.
        headers: further ones, their values without spaces.
        region: of the bucket.
        credentials: with ``access_key``, ``secret_key`` and ``token``.
        at: now, in UTC.
    """
    parts = urlsplit(address)
    usual = parts.port in (None, {"http": 80, "https": 443}[parts.scheme])
    host = parts.netloc.rpartition("@")[2]
    given = {
        **{name.lower(): value for name, value in headers.items()},
        "host": host.rpartition(":")[0] if usual and parts.port else host,
        "x-amz-content-sha256": _OF_NOTHING,
        "x-amz-date": f"{at:%Y%m%dT%H%M%SZ}",
        **({"x-amz-security-token": credentials.token} if credentials.token else {}),
    }
    names = ";".join(sorted(given))
    lines = [f"{name}:{given[name]}" for name in sorted(given)]
    asked = "\n".join(["GET", parts.path, "", *lines, "", names, _OF_NOTHING])
    scope = f"{at:%Y%m%d}/{region}/s3/aws4_request"
    digest = hashlib.sha256(asked.encode()).hexdigest()
    key = f"AWS4{credentials.secret_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    to_sign = "\n".join(["AWS4-HMAC-SHA256", given["x-amz-date"], scope, digest])
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    given["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={credentials.access_key}/{scope}, "
        f"SignedHeaders={names}, Signature={signature}"
    )
    return given


def _close(connections: deque[HTTPConnection]) -> None:
    for each in connections:
        each.close()
