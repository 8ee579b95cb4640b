"""Objects as files under a folder."""

from __future__ import annotations

import errno
import io
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from components.errors import StoreError
from components.store.objects import (
    DRAFTS,
    Keys,
    ObjectMissing,
    Store,
    checked_key,
    checked_prefix,
    files_under,
    is_key,
    whole_file,
)

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS}


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
        folder = self.root / checked_prefix(prefix).rpartition("/")[0]
        try:
            keys = [path.relative_to(self.root).as_posix() for path in files_under(folder)]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise StoreError(f"cannot list {folder}: {error.strerror}") from error
        return sorted(key for key in keys if key.startswith(prefix) and is_key(key))

    def upload(self, key: str, file: Path) -> None:
        """Write an object from a file without holding it in memory."""
        with file.open("rb") as source, self._draft(key, source) as (draft, path):
            draft.replace(path)

    def download(self, key: str, file: Path) -> None:
        """Write an object to a file, made whole or not at all; ``ObjectMissing`` if absent."""
        with self._reading(key) as source, whole_file(file) as target:
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


def _sync(folder: Path) -> None:
    """Make the names inside a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
