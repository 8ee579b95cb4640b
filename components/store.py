"""Objects on local disk or S3, with one primitive to decide races by.

``create_if_absent`` is what the ledger and the triggers stand on: of any number of
callers, in threads, processes or pods, exactly one creates the object, and nobody
ever sees half of it. On disk a finished draft is hard-linked to its name; on S3 the
request says ``If-None-Match: *``.

Keys are relative paths with ``/`` between their parts, valid on both. A key that is
also the folder of another one (``a`` and ``a/b``) works on S3 only.
"""

from __future__ import annotations

import errno
import io
import os
import re
import shutil
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeAlias
from urllib.parse import unquote, urlsplit

from components.errors import ConfigError, StoreError

Keys: TypeAlias = list[str]  # inside a class with a method of that name, list[str] is not a type

DRAFTS = ".drafts"
"""Folder of unfinished files at the root of a local store; a name no key may use."""

CONFLICT_PAUSES = (0.0, 0.05, 0.2, 0.8)
"""Seconds before each attempt while S3 answers 409: a rival request is still in flight."""

_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f\\]")
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS}
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


class ObjectMissing(StoreError):
    """There is no object of this key."""


class OutcomeUnknown(StoreError):
    """The connection broke after a create was sent: the object may or may not be there.

    Sending the same create again is safe, but its False may then mean one's own first
    attempt. Only the caller can tell, by an owner or key inside the data.
    """


class Store(ABC):
    """Objects by key. All methods may be called from many threads at once.

    A key that is not a plain relative path is a ``ValueError``; everything the disk or
    the server refuses is a ``StoreError``.
    """

    @abstractmethod
    def get(self, key: str) -> bytes:
        """Return an object's content; ``ObjectMissing`` if there is none."""

    @abstractmethod
    def put(self, key: str, data: bytes) -> None:
        """Write an object whole, over the one that may be there; the last writer wins."""

    @abstractmethod
    def create_if_absent(self, key: str, data: bytes) -> bool:
        """Create an object unless it exists; True for the one caller that created it.

        ``OutcomeUnknown`` if the server's answer was lost.
        """

    @abstractmethod
    def exists(self, key: str) -> bool:
        """Tell whether there is an object of this key; a folder is none."""

    @abstractmethod
    def list(self, prefix: str = "") -> Keys:
        """Return the sorted keys that begin with ``prefix``: ``"a/"`` for a folder's.

        Objects that others put there under names no key may have are left out.
        """

    @abstractmethod
    def upload(self, key: str, file: Path) -> None:
        """Write an object from a file without holding it in memory; ``OSError`` if unreadable."""

    @abstractmethod
    def download(self, key: str, file: Path) -> None:
        """Write an object to a file, made whole or not at all; ``ObjectMissing`` if absent."""

    @abstractmethod
    def uri(self, key: str) -> str:
        """Return the ``file:///`` or ``s3://`` address of a key."""

    @abstractmethod
    def local_path(self, key: str) -> Path | None:
        """Return where a key lies on this disk, or None when it lies elsewhere."""

    def upload_directory(self, prefix: str, folder: Path) -> None:
        """Write all files of a folder under ``prefix``; empty folders are not kept.

        ``OSError`` if the folder or a file in it cannot be read.
        """
        if not folder.is_dir():
            raise ValueError(f"{folder} is not a folder")
        names = {path.relative_to(folder).as_posix(): path for path in _files_under(folder)}
        # All names are checked before anything is sent.
        for key, path in sorted((checked_key(f"{prefix}/{name}"), names[name]) for name in names):
            self.upload(key, path)

    def download_directory(self, prefix: str, folder: Path) -> None:
        """Write all objects under ``prefix`` into a folder; ``ObjectMissing`` if none are."""
        keys = self.list(f"{checked_key(prefix)}/")
        if not keys:
            raise ObjectMissing(f"there are no objects under {self.uri(prefix)}")
        for key in keys:
            # list() gives only checked keys, so no name can lead out of the folder.
            self.download(key, folder / key.removeprefix(f"{prefix}/"))


def open_store(url: str) -> Store:
    """Open ``s3://bucket/prefix``, ``file:///folder`` or the path of a folder.

    The S3 endpoint, region and credentials come from the environment that boto3 reads
    (``AWS_ENDPOINT_URL_S3``, ``AWS_ACCESS_KEY_ID``, …). ``ConfigError`` on other addresses.
    """
    scheme, separator, rest = url.partition("://")
    if not separator and url:
        return LocalStore(Path(url).expanduser())
    if scheme == "file" and rest.removeprefix("localhost").startswith("/"):
        return LocalStore(Path(unquote(rest.removeprefix("localhost"))))
    if scheme == "s3":
        bucket, _, prefix = rest.partition("/")
        try:
            return S3Store(bucket, prefix.rstrip("/"))
        except ValueError as error:
            raise ConfigError(f"the address of the object store is wrong: {error}") from error
    # The address itself is not quoted: a wrong one may carry a password.
    raise ConfigError(
        "the address of the object store must be s3://bucket/prefix, file:///folder or a path"
    )


def checked_key(key: str) -> str:
    """Return the key if it is a plain relative path, else raise ``ValueError``."""
    if _FORBIDDEN.search(key):
        raise ValueError(f"the key {key!r} has a backslash or a control character")
    if {"", ".", ".."} & set(key.split("/")):
        raise ValueError(f"the key {key!r} has an empty, '.' or '..' part")
    if DRAFTS in key.split("/"):
        raise ValueError(f"the key {key!r} uses the reserved name {DRAFTS!r}")
    key.encode()  # a lone surrogate is a ValueError here rather than an error in some server
    return key


def _is_key(key: str) -> bool:
    try:
        return bool(checked_key(key))
    except ValueError:
        return False


def _checked_prefix(prefix: str) -> str:
    """Return the beginning of a key, which may end anywhere, also in a ``/``."""
    if prefix:
        checked_key(f"{prefix}x")
    return prefix


def _files_under(folder: Path) -> Iterator[Path]:
    """Walk a folder; a subfolder that cannot be read is an ``OSError``, never left out."""

    def refuse(error: OSError) -> None:
        raise error

    for where, _, names in os.walk(folder, onerror=refuse):
        yield from (path for name in names if (path := Path(where, name)).is_file())


@contextmanager
def _whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that takes its name only once its writer is through."""
    part = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("xb") as file:
                yield file
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror}") from error


def _sync(folder: Path) -> None:
    """Make the names inside a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class LocalStore(Store):
    """Objects as files under a root folder, which the first write makes.

    Every write is a finished, synced draft that then takes its name in one step; a writer
    killed at any moment leaves at most a draft. Drafts lie in one folder at the root, not
    beside the objects, so that a folder read through ``local_path`` holds nothing else.
    """

    def __init__(self, root: Path) -> None:
        """Name the root; nothing is written yet."""
        self.root = root.absolute()

    def get(self, key: str) -> bytes:
        """Return an object's content; ``ObjectMissing`` if there is none."""
        with self._reading(key) as file:
            return file.read()

    def put(self, key: str, data: bytes) -> None:
        """Write an object whole, over the one that may be there; the last writer wins."""
        with self._draft(key, io.BytesIO(data)) as (draft, path):
            draft.replace(path)

    def create_if_absent(self, key: str, data: bytes) -> bool:
        """Create an object unless it exists; True for the one caller that created it."""
        if self.exists(key):
            return False
        with self._draft(key, io.BytesIO(data)) as (draft, path):
            try:
                os.link(draft, path)
            except FileExistsError:
                if path.is_dir():
                    raise
                # NFS may repeat a link whose answer was lost and then refuse its own work.
                return draft.stat().st_nlink > 1
            except OSError as error:
                if error.errno in _NO_LINKS:
                    raise StoreError(
                        f"the file system of {self.root} has no hard links, which decide who "
                        "comes first; use another folder or an s3:// address"
                    ) from error
                raise
        return True

    def exists(self, key: str) -> bool:
        """Tell whether there is an object of this key; a folder is none."""
        try:
            return self.local_path(key).is_file()
        except OSError as error:
            raise StoreError(f"cannot look for {self.uri(key)}: {error.strerror}") from error

    def list(self, prefix: str = "") -> Keys:
        """Return the sorted keys that begin with ``prefix``: ``"a/"`` for a folder's."""
        folder = self.root / _checked_prefix(prefix).rpartition("/")[0]
        try:
            keys = [path.relative_to(self.root).as_posix() for path in _files_under(folder)]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise StoreError(f"cannot list {folder}: {error.strerror}") from error
        return sorted(key for key in keys if key.startswith(prefix) and _is_key(key))

    def upload(self, key: str, file: Path) -> None:
        """Write an object from a file without holding it in memory."""
        with file.open("rb") as source, self._draft(key, source) as (draft, path):
            draft.replace(path)

    def download(self, key: str, file: Path) -> None:
        """Write an object to a file, made whole or not at all; ``ObjectMissing`` if absent."""
        with self._reading(key) as source, _whole_file(file) as target:
            shutil.copyfileobj(source, target)

    def uri(self, key: str) -> str:
        """Return the ``file:///`` address of a key."""
        return self.local_path(key).as_uri()

    def local_path(self, key: str) -> Path:
        """Return where a key lies on this disk."""
        return self.root / checked_key(key)

    @contextmanager
    def _reading(self, key: str) -> Iterator[IO[bytes]]:
        try:
            with self.local_path(key).open("rb") as file:
                yield file
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise ObjectMissing(f"there is no object {self.uri(key)}") from error
        except OSError as error:
            raise StoreError(f"cannot read {self.uri(key)}: {error.strerror}") from error

    @contextmanager
    def _draft(self, key: str, source: IO[bytes]) -> Iterator[tuple[Path, Path]]:
        """Give a finished draft and the path it is to take; tidy up whatever happens."""
        path = self.local_path(key)
        draft = self.root / DRAFTS / uuid.uuid4().hex
        try:
            draft.parent.mkdir(parents=True, exist_ok=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with draft.open("xb") as file:
                    shutil.copyfileobj(source, file)
                    file.flush()
                    os.fsync(file.fileno())
                yield draft, path
            finally:
                draft.unlink(missing_ok=True)
            # A name is kept by its folder: unsynced, a power cut could undo a promotion.
            folder = path.parent
            while folder != self.root.parent:
                _sync(folder)
                folder = folder.parent
        except OSError as error:
            raise StoreError(f"cannot write {self.uri(key)}: {error.strerror}") from error


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
        start = self.prefix + _checked_prefix(prefix)
        with self._asking("list", prefix):
            pages = self._client.get_paginator("list_objects_v2")
            found = [
                item["Key"].removeprefix(self.prefix)
                for page in pages.paginate(Bucket=self.bucket, Prefix=start)
                for item in page.get("Contents", [])
            ]
        return sorted(filter(_is_key, found))

    def upload(self, key: str, file: Path) -> None:
        """Write an object from a file without holding it in memory."""
        with file.open("rb") as source, self._asking("write", key):
            self._client.upload_fileobj(source, **self._at(key))

    def download(self, key: str, file: Path) -> None:
        """Write an object to a file, made whole or not at all; ``ObjectMissing`` if absent."""
        with _whole_file(file) as target, self._asking("read", key):
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
        # Nobody reads the times in a listing, and to parse them takes most of its time.
        core.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=str)
        session = boto3.session.Session(botocore_session=core)
        return [session.client("s3", endpoint_url=endpoint_url, config=one) for one in configs]
    except (BotoCoreError, ValueError) as error:
        reason = type(error).__name__
        raise StoreError(f"the S3 settings in the environment are wrong: {reason}") from error


def _status(error: Any) -> int:
    status: int = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
