"""What every store is: objects by key, with one primitive to decide races by.

Keys are relative paths with ``/`` between their parts, valid everywhere. A key that is
also the folder of another one (``a`` and ``a/b``) works on S3 only.
"""

from __future__ import annotations

import os
import re
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeAlias

from components.errors import StoreError

Keys: TypeAlias = list[str]  # inside a class with a method of that name, list[str] is not a type

DRAFTS = ".drafts"
"""Folder of unfinished files at the root of a local store; a name no key may use."""

_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f\\]")


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
        names = {path.relative_to(folder).as_posix(): path for path in files_under(folder)}
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


def is_key(key: str) -> bool:
    """Tell whether a name is a plain relative path."""
    try:
        return bool(checked_key(key))
    except ValueError:
        return False


def checked_prefix(prefix: str) -> str:
    """Return the beginning of a key, which may end anywhere, also in a ``/``."""
    if prefix:
        checked_key(f"{prefix}x")
    return prefix


def files_under(folder: Path) -> Iterator[Path]:
    """Walk a folder; a subfolder that cannot be read is an ``OSError``, never left out."""

    def refuse(error: OSError) -> None:
        raise error

    for where, _, names in os.walk(folder, onerror=refuse):
        yield from (path for name in names if (path := Path(where, name)).is_file())


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
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
