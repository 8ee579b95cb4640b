"""Objects in a bucket of S3, or of a server that speaks as it does."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from components.errors import StoreError
from components.store.objects import (
    Keys,
    ObjectMissing,
    OutcomeUnknown,
    Store,
    checked_key,
    checked_prefix,
    is_key,
    whole_file,
)

CONFLICT_PAUSES = (0.0, 0.05, 0.2, 0.8)
"""Seconds before each attempt while S3 answers 409: a rival request is still in flight."""

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


class S3Store(Store):
    """Objects in a bucket, under a prefix, on any server that honours ``If-None-Match``.

    Reads and puts are repeated by boto3 when a connection breaks. A create is sent once:
    after a lost answer a repeated one would be refused because of the first, and a winner
    would believe that it had lost. It ends in ``OutcomeUnknown`` instead.
    """

    def __init__(self, bucket: str, prefix: str = "", *, endpoint_url: str | None = None) -> None:
        """Prepare the clients; nothing is sent yet. Without an endpoint, boto3's settings hold."""
        if not _BUCKET.fullmatch(bucket):
            raise ValueError("a bucket's name is 3 to 63 of a-z, 0-9, '.' and '-'")
        self.bucket = bucket
        self.prefix = f"{checked_key(prefix)}/" if prefix else ""
        # Both are made at once, here: a client may be shared by threads, its making may not.
        self._client, self._client_once = _s3_clients(endpoint_url, 5, 1)
        self._server = _without_password(self._client.meta.endpoint_url)
        self._create_is_safe = False

    def get(self, key: str) -> bytes:
        """Return an object's content; ``ObjectMissing`` if there is none."""
        with self._asking("read", key):
            content: bytes = self._client.get_object(**self._at(key))["Body"].read()
            return content

    def put(self, key: str, data: bytes) -> None:
        """Write an object whole, over the one that may be there; the last writer wins."""
        with self._asking("write", key):
            self._client.put_object(**self._at(key), Body=data)

    def create_if_absent(self, key: str, data: bytes) -> bool:
        """Create an object unless it exists; True for the one caller that created it.

        ``OutcomeUnknown`` if the server's answer was lost.
        """
        created = self._create(key, data)
        if created and not self._create_is_safe:
            self._refuse_careless_server(key, data)
        return created

    def exists(self, key: str) -> bool:
        """Tell whether there is an object of this key; a folder is none."""
        try:
            with self._asking("look for", key):
                self._client.head_object(**self._at(key))
        except ObjectMissing:
            return False
        return True

    def list(self, prefix: str = "") -> Keys:
        """Return the sorted keys that begin with ``prefix``: ``"a/"`` for a folder's."""
        start = self.prefix + checked_prefix(prefix)
        with self._asking("list", prefix):
            pages = self._client.get_paginator("list_objects_v2")
            found = [
                item["Key"].removeprefix(self.prefix)
                for page in pages.paginate(Bucket=self.bucket, Prefix=start)
                for item in page.get("Contents", [])
            ]
        return sorted(filter(is_key, found))

    def upload(self, key: str, file: Path) -> None:
        """Write an object from a file without holding it in memory."""
        with file.open("rb") as source, self._asking("write", key):
            self._client.upload_fileobj(source, **self._at(key))

    def download(self, key: str, file: Path) -> None:
        """Write an object to a file, made whole or not at all; ``ObjectMissing`` if absent."""
        with whole_file(file) as target, self._asking("read", key):
            self._client.download_fileobj(**self._at(key), Fileobj=target)

    def uri(self, key: str) -> str:
        """Return the ``s3://`` address of a key."""
        return f"s3://{self.bucket}/{self.prefix}{checked_key(key)}"

    def local_path(self, key: str) -> None:
        """Return None: nothing of this store lies on this disk."""
        checked_key(key)

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": self.prefix + checked_key(key)}

    def _create(self, key: str, data: bytes) -> bool:
        from botocore.exceptions import ClientError, ConnectionError, HTTPClientError

        for pause in CONFLICT_PAUSES:
            time.sleep(pause)
            with self._asking("create", key):
                try:
                    self._client_once.put_object(**self._at(key), Body=data, IfNoneMatch="*")
                    return True
                except ClientError as error:
                    status = _status(error)
                    if status == 412:
                        return False
                    if status in (500, 502, 503, 504):
                        raise self._unknown(key) from error
                    if status != 409:
                        raise
                except ConnectionError:
                    raise  # never connected, so nothing was sent
                except HTTPClientError as error:
                    raise self._unknown(key) from error
        if self.exists(key):
            return False
        raise StoreError(f"{self._server} keeps answering 409 Conflict for {self.uri(key)}")

    def _refuse_careless_server(self, key: str, data: bytes) -> None:
        """Repeat this process's first win: the server must refuse it.

        One that ignores ``If-None-Match`` would let two promoters win without a word.
        """
        try:
            won_twice = self._create(key, data)
        except StoreError:
            return  # the win stands; the next one will be repeated instead
        if won_twice:
            raise StoreError(
                f"{self._server} ignores If-None-Match, so two writers could both win; "
                "use a server that honours it, such as SeaweedFS 4 or AWS S3"
            )
        self._create_is_safe = True

    def _unknown(self, key: str) -> OutcomeUnknown:
        return OutcomeUnknown(
            f"{self._server} did not answer whether it created {self.uri(key)}; run again"
        )

    @contextmanager
    def _asking(self, act: str, key: str) -> Iterator[None]:
        """Turn what boto3 raises into one clear line."""
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        where = f"s3://{self.bucket}/{self.prefix}{key}"
        try:
            yield
        except (ClientError, Boto3Error, BotoCoreError) as error:
            raise explained_s3(error, act, where, self._server) from error


def explained_s3(error: Any, act: str, where: str, server: str) -> StoreError:
    """Return one clear line, without a secret, about what boto3 raised.

    Args:
        error: of boto3 or botocore.
        act: what was tried, such as ``read``.
        where: address of the object.
        server: address of the server.
    """
    from botocore.exceptions import ClientError

    server = _without_password(server)
    if isinstance(error, ClientError):
        code, status = error.response["Error"]["Code"], _status(error)
        if code == "NoSuchBucket":
            return StoreError(f"cannot {act} {where}: {server} has no such bucket")
        if status == 404:
            return ObjectMissing(f"there is no object {where}")
        if status in (401, 403):
            return StoreError(
                f"cannot {act} {where}: {server} denies access ({code}); "
                "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and what they may do"
            )
        return StoreError(f"cannot {act} {where}: {server} answers {status} {code}")
    name = type(error).__name__
    if name in ("EndpointConnectionError", "ConnectTimeoutError"):
        line = f"cannot reach {server}; is it running, is AWS_ENDPOINT_URL_S3 right?"
    elif "Credential" in name:
        line = "no S3 credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    else:
        line = name
    return StoreError(f"cannot {act} {where}: {line}")


def s3_client() -> Any:
    """Return a client of the S3 that the environment names, for up to 32 threads."""
    [client] = _s3_clients(None, 5)
    return client


def _s3_clients(endpoint_url: str | None, *attempts: int) -> list[Any]:
    """Make one client for each given number of attempts at a request."""
    import boto3
    import botocore.session
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    configs = [
        Config(
            connect_timeout=10,
            read_timeout=60,
            signature_version="s3v4",
            max_pool_connections=32,
            retries={"mode": "standard", "total_max_attempts": total},
        )
        for total in attempts
    ]
    try:
        # A session of its own: boto3's default one is not made for threads.
        core = botocore.session.get_session()
        core.register_component("data_loader", _service_models())
        # Nobody reads the times in a listing, and to parse them takes most of its time.
        core.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=str)
        session = boto3.session.Session(botocore_session=core)
        return [session.client("s3", endpoint_url=endpoint_url, config=one) for one in configs]
    except (BotoCoreError, ValueError) as error:
        reason = type(error).__name__
        raise StoreError(f"the S3 settings in the environment are wrong: {reason}") from error


@cache
def _service_models() -> Any:
    """Return botocore's descriptions of services: read once, for it takes a fifth of a second."""
    from botocore.loaders import create_loader

    return create_loader()


def _status(error: Any) -> int:
    status: int = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
