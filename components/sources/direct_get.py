"""Small objects of S3, fetched with the signature of botocore and no more of it."""

from __future__ import annotations

import ssl
import weakref
from collections import deque
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass

TIMEOUT_S = 60


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
        path, headers = self._signed(key, etag)
        try:
            connection.request("GET", path, headers=headers)
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

    def _signed(self, key: str, etag: str) -> tuple[str, dict[str, str]]:
        """Return the path of an object, and the headers to ask for it with."""
        from botocore.auth import S3SigV4Auth
        from botocore.awsrequest import AWSRequest

        address = self._address + quote(key, safe="/~")
        request = AWSRequest("GET", address, headers={"If-Match": f'"{etag}"'})
        credentials = self._credentials.get_frozen_credentials()
        S3SigV4Auth(credentials, "s3", self._region).add_auth(request)
        return urlsplit(address).path, dict(request.headers.items())


def _close(connections: deque[HTTPConnection]) -> None:
    for each in connections:
        each.close()
