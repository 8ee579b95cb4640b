"""Rows from objects of S3, or of any store that speaks its language.

Listed with their etags, so that only new ones are read; read at the etag that was listed, so
that one that changes in between is noticed. The endpoint, the region and the credentials
come from the environment that boto3 reads.
"""

from __future__ import annotations

import io
import posixpath
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import cached_property, partial
from pathlib import PurePosixPath
from typing import Annotated, Any, BinaryIO, Literal, cast

from pydantic import AfterValidator

from components.errors import SourceError
from components.settings import digest_of
from components.sources.block import Block, Form
from components.sources.columns import Part, TableConfig
from components.sources.converting import SMALL_BYTES, Changed, Table
from components.sources.direct_get import DirectGet
from components.sources.files import day_of, is_hidden
from components.sources.packed import is_packed, unpacked
from components.sources.reading import TableSource
from components.sources.tables import JSON_LINES, PARQUET, blocks, kind_of
from components.store import explained_s3, s3_client
from components.windows import Day, Window

_URL = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/([^*?\[]*))?")
SPOOLED_BYTES = 32 << 20
"""A larger object of Parquet is laid on disk while it is read."""


def _url(text: str) -> str:
    if not _URL.fullmatch(text):
        raise ValueError("should be s3://bucket/prefix, and credentials are no part of it")
    return text


class S3Config(TableConfig):
    """Section ``source`` with ``kind: s3``."""

    kind: Literal["s3"]
    url: Annotated[str, AfterValidator(_url)]
    """``s3://bucket/prefix`` of the objects, or of a single one."""
    pattern: str = "**"
    """Which keys below the prefix are taken, such as ``dt=*/*.jsonl.gz``; a ``*`` may stand
    for slashes, too. Names that begin with ``_`` or ``.`` are left out."""
    name: str = ""
    """Put before the row ids, and the ``source`` of the rows."""
    at: Day | None = None
    """The day given to all rows, where they carry no times."""
    partition: str = ""
    """Instead of ``at``: of keys such as ``dt=2026-01-05/part-0.csv``, the part (``dt``)
    whose value is the day of all rows below."""

    @property
    def parts(self) -> list[Part]:
        """All objects alike."""
        return [Part(path="**", name=self.name, at=self.at, partition=self.partition)]

    @property
    def place(self) -> tuple[str, str]:
        """The bucket and the prefix."""
        found = _URL.fullmatch(self.url)
        assert found is not None
        return found[1], found[2] or ""


class _Whole(io.RawIOBase):
    """The body of an answer, which says so where it ends too early."""

    def __init__(self, body: Any) -> None:
        self._body = body

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data: bytes = self._body.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._body.close()
        super().close()


class S3Source(TableSource):
    """Reads objects, many small ones at the same time."""

    _config: S3Config

    def tables(self, window: Window) -> list[Table]:
        """Return the objects, those of days outside of the window left out."""
        bucket, prefix = self._config.place
        [part] = self._config.parts
        listed = self._listed(bucket, prefix)
        pictures = self._config.columns.image is not None
        tree = digest_of([[key, etag] for key, etag, _ in listed]) if pictures else ""
        tables = []
        for key, etag, size in listed:
            below = key.removeprefix(prefix).lstrip("/") or PurePosixPath(key).name
            if is_hidden(below) or not fnmatchcase(below, self._config.pattern.replace("**", "*")):
                continue
            if pictures and kind_of(key) not in (*PARQUET, *JSON_LINES, ".csv", ".tsv", ".txt"):
                continue
            tables.append(
                Table(
                    name=f"s3://{bucket}/{key}",
                    version=f"{etag}-{size}-{tree}",
                    part=part,
                    blocks=partial(self._blocks, bucket, key, etag, size),
                    # Every read asks for the etag itself.
                    is_current=lambda: True,
                    day=day_of(part, key, self._config),
                    size=size,
                    optional=key != prefix,
                    picture=partial(self._picture, bucket, prefix, key),
                )
            )
        if not tables:
            raise SourceError(
                f"there are no objects {self._config.pattern} under {self._config.url}; "
                "mend source.url or source.pattern"
            )
        return tables

    @cached_property
    def _client(self) -> Any:
        return s3_client()

    @contextmanager
    def _asking(self, key: str) -> Iterator[None]:
        """Turn what boto3 raises into one clear line."""
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import (
            BotoCoreError,
            ClientError,
            IncompleteReadError,
            ResponseStreamingError,
        )

        try:
            yield
        except (ClientError, Boto3Error, BotoCoreError) as error:
            if isinstance(error, IncompleteReadError | ResponseStreamingError):
                raise SourceError(f"{key} broke off while it was read: {error}") from error
            answer = getattr(error, "response", {})
            code = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
            if code in (404, 412) and answer["Error"]["Code"] != "NoSuchBucket":
                raise Changed(key) from error
            said = explained_s3(error, "read", key, self._client.meta.endpoint_url)
            raise SourceError(str(said)) from error

    def _listed(self, bucket: str, prefix: str) -> list[tuple[str, str, int]]:
        with self._asking(f"s3://{bucket}/{prefix}"):
            pages = self._client.get_paginator("list_objects_v2")
            return sorted(
                (item["Key"], item["ETag"].strip('"'), item["Size"])
                for page in pages.paginate(Bucket=bucket, Prefix=prefix)
                for item in page.get("Contents", [])
                if not item["Key"].endswith("/") and _below(item["Key"], prefix)
            )

    def _blocks(
        self, bucket: str, key: str, etag: str, size: int, form: Form, wanted: Sequence[str]
    ) -> Iterator[Block]:
        if size == 0:
            return
        name = f"s3://{bucket}/{key}"
        if size <= SMALL_BYTES:
            with unpacked(io.BytesIO(self._content(bucket, key, etag, size)), key, size) as content:
                yield from blocks(content, key, form, wanted)
            return
        with self._asking(name):
            body = self._body(bucket, key, etag, size)
            seekable = kind_of(key) in PARQUET or PurePosixPath(key).suffix.lower() == ".zip"
            with tempfile.SpooledTemporaryFile(SPOOLED_BYTES) as file:
                # Opened by itself it gives what is beneath, which breaks off without a word.
                stream: Any = io.BufferedReader(_Whole(body), 1 << 20)
                if seekable:
                    for chunk in body.iter_chunks(1 << 20):
                        file.write(chunk)
                    file.seek(0)
                    stream = file
                with unpacked(stream, key, size) as content:
                    if kind_of(key) in PARQUET and is_packed(key):
                        content = cast(BinaryIO, io.BytesIO(content.read()))
                    yield from blocks(content, key, form, wanted)

    def _body(self, bucket: str, key: str, etag: str, size: int) -> Any:
        """Return the content of an object as a stream, which is as long as it was listed."""
        answer = self._client.get_object(Bucket=bucket, Key=key, IfMatch=f'"{etag}"')
        length = answer.get("ContentLength")
        # Some stores unpack what they send, and say another length, or none.
        if length not in (None, size) and not answer.get("ContentEncoding"):
            raise SourceError(
                f"s3://{bucket}/{key} is sent with {length:,} bytes, and is listed with {size:,}"
            )
        return answer["Body"]

    def _content(self, bucket: str, key: str, etag: str, size: int) -> bytes:
        """Return a small object, past boto3 if that goes well.

        boto3 works longer on a request than the store does. What goes wrong is asked for
        again through it, for it knows when to try again, and what to say.
        """
        content = self._direct.get(key, etag) if self._direct else None
        if content is not None and len(content) == size:
            return content
        with self._asking(f"s3://{bucket}/{key}"):
            content = self._body(bucket, key, etag, size).read()
            assert isinstance(content, bytes)
            return content

    @cached_property
    def _direct(self) -> DirectGet | None:
        return DirectGet.of(self._client, self._config.place[0])

    def _picture(self, bucket: str, prefix: str, key: str, name: str) -> bytes | None:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(key), name))
        if not _below(path, prefix) or path.startswith(("/", "..")):
            raise SourceError(f"the image {name} lies outside of s3://{bucket}/{prefix}")
        try:
            with self._asking(f"s3://{bucket}/{path}"):
                content: bytes = self._client.get_object(Bucket=bucket, Key=path)["Body"].read()
                return content
        except Changed:
            return None


def _below(key: str, prefix: str) -> bool:
    """Tell whether a key is a prefix or below it: ``data2/x`` is not below ``data``."""
    folder = prefix.rstrip("/")
    return not folder or key == prefix or key.startswith(f"{folder}/")
