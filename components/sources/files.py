"""Rows from files of this disk: delimited text, JSON lines or Parquet; images beside them.

A file may carry a time in every row, be given one as a whole by ``at``, or by the folder it
lies in (``dt=2026-01-05/``). ``at`` is how undated collections are played as consecutive
windows.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import pandas as pd
import pyarrow as pa
from pydantic import Field

from components.errors import ConfigError, SourceError
from components.packages import locate
from components.settings import digest_of
from components.sources.block import Block, Form, Unreadable
from components.sources.columns import ColumnNames, Part, Pixels, TableConfig
from components.sources.converting import UNREADABLE_CONTENT, Changed, Table
from components.sources.delimited import SEPARATORS, separator_in
from components.sources.packed import is_packed, unpacked
from components.sources.reading import TableSource
from components.sources.tables import JSON_LINES, PARQUET, blocks, kind_of
from components.windows import Window

__all__ = ["ColumnNames", "FilesConfig", "FilesSource", "Part", "Pixels"]

SETTLED_S = 2.0
"""A file that was written so long ago is known by size and times; a newer one, whose times
may not tell a second writing, by its content as well."""
SAMPLE_BYTES = 1 << 20
Reader = Callable[[Path, Form, Sequence[str]], Iterator[Block]]
_HIDDEN = ("_", ".")
"""First characters of files and folders that a pattern leaves out, as Spark and Hive do."""


class FilesConfig(TableConfig):
    """Section ``source`` with ``kind: files``."""

    kind: Literal["files"] = "files"
    root: str = "."
    """Folder of the files: a path, or ``package:folder`` inside an installed package."""
    requirement: str = ""
    """What to tell pip when the package of ``root`` is missing."""
    files: list[Part] = Field(min_length=1)

    @property
    def parts(self) -> list[Part]:
        """The files."""
        return self.files

    @property
    def roots(self) -> list[tuple[str, str]]:
        """Every folder that files lie in, with what to tell pip when its package is missing."""
        own = [(part.root, part.requirement) for part in self.files if part.root]
        return list(dict.fromkeys([(self.root, self.requirement), *own]))


class FilesSource(TableSource):
    """Reads files of this disk; those that did not change only once."""

    _config: FilesConfig

    def tables(self, window: Window) -> list[Table]:
        """Return the files."""
        try:
            return [table for part in self._config.files for table in self._tables(part)]
        except FileNotFoundError as error:  # since it was listed
            raise Changed(str(error.filename)) from error
        except OSError as error:
            raise SourceError(f"cannot read {error.filename}: {error.strerror}") from error

    def _tables(self, part: Part) -> Iterator[Table]:
        own, source = (part.root, part.requirement), (self._config.root, self._config.requirement)
        root = locate(*(own if part.root else source))
        tree = ""
        if (part.columns or self._config.columns).image is not None:
            tree = _tree(root if root.is_dir() else root.parent)
        reader = read_file
        if part.labels:
            labels = root / part.labels
            if not labels.is_file():
                raise ConfigError(f"there is no file {labels}; mend source.files or source.root")
            names = part.columns or self._config.columns
            tree += _version(labels, "")
            reader = partial(_read_with_labels, labels, names.id or "", names.label or "")
        for path in _found(root, part):
            yield self._table(root, part, path, tree, reader)

    def _table(self, root: Path, part: Part, path: Path, tree: str, reader: Reader) -> Table:
        version = _version(path, tree)
        return Table(
            name=_named(path),
            version=version,
            part=part,
            blocks=partial(reader, path),
            is_current=lambda: _same(path, version, tree),
            day=day_of(part, str(path), self._config),
            size=path.stat().st_size,
            optional=part.is_pattern or path not in (root, root / part.path),
            picture=partial(_picture, root, path.parent),
        )


def day_of(part: Part, name: str, config: TableConfig) -> str:
    """Return the day that all rows of a table are given by its part or its place.

    Raises:
        SourceError: its place names no day.
    """
    if part.at or not part.partition or (part.columns or config.columns).time:
        return part.at or ""
    found = re.search(rf"(?:^|/){re.escape(part.partition)}=(\d{{4}}-\d{{2}}-\d{{2}})(?:/|$)", name)
    if found is None:
        raise SourceError(f"{name} lies in no folder {part.partition}=YYYY-MM-DD")
    try:
        return str(Part(path="", at=found[1]).at)
    except ValueError as error:
        raise SourceError(f"{name}: {found[1]} is no day") from error


def is_hidden(name: str) -> bool:
    """Tell whether a pattern leaves out a relative path, such as ``_SUCCESS``."""
    return any(each.startswith(_HIDDEN) for each in name.split("/"))


def _found(root: Path, part: Part) -> list[Path]:
    """Return the files of a part in a fixed order, all of them below the root."""
    if not root.is_dir():
        return [root]
    path = root / part.path
    if part.is_pattern:
        try:
            found = list(root.glob(part.path))
        except (ValueError, NotImplementedError) as error:
            raise ConfigError(f"source.files: {part.path!r} is no pattern: {error}") from error
    elif path.is_dir():
        found = list(path.rglob("*"))
    elif path.exists():
        found = [path]
        if not path.is_file():
            raise ConfigError(f"{path} is no file that can be read more than once")
    else:
        raise ConfigError(f"there is no file {path}; mend source.files or source.root")
    inside = root.resolve()
    for each in found if not Path(part.path).is_absolute() else ():
        if not Path(os.path.realpath(each)).is_relative_to(inside):
            raise SourceError(f"{each} lies outside of {root}, see source.root")
    return sorted(
        each
        for each in found
        if each.is_file() and (each == path or not is_hidden(each.relative_to(root).as_posix()))
    )


def _version(path: Path, tree: str) -> str:
    """Return what changes with the content of a file, and of the images around it."""
    known = path.stat()
    version = f"{known.st_size}-{known.st_mtime_ns}-{known.st_ctime_ns}-{known.st_ino}"
    if time.time() - max(known.st_mtime, known.st_ctime) < SETTLED_S:
        with path.open("rb") as file:
            version = hashlib.file_digest(file, "sha256").hexdigest()
    return f"{version}-{tree}" if tree else version


def _named(path: Path) -> str:
    """Return a path as text, also one that is written in another encoding."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _same(path: Path, version: str, tree: str) -> bool:
    try:
        return _version(path, tree) == version
    except OSError:
        return False  # it is gone


def _tree(folder: Path) -> str:
    """Return the digest of the versions of all files below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return digest_of([[_named(path.relative_to(folder)), _version(path, "")] for path in files])


def _picture(root: Path, folder: Path, name: str) -> bytes | None:
    if "\0" in name:  # no path holds it
        return None
    path = (folder / name).resolve()
    if not path.is_relative_to((root if root.is_dir() else folder).resolve()):
        raise SourceError(f"the image {name} lies outside of {root}, see source.root")
    try:
        return path.read_bytes()
    except OSError:
        return None


def read_file(path: Path, form: Form, wanted: Sequence[str]) -> Iterator[Block]:
    """Read a file block by block, see ``components.sources.tables.blocks``."""
    size = path.stat().st_size
    if size == 0:
        return
    with path.open("rb") as packed, unpacked(packed, path.name, size) as stream:
        if kind_of(path.name) in PARQUET and is_packed(path.name):
            with tempfile.TemporaryFile() as file:
                shutil.copyfileobj(stream, file)
                yield from blocks(cast(BinaryIO, file), path.name, form, wanted)
        else:
            yield from blocks(stream, path.name, form, wanted)


def _read_with_labels(
    labels: Path, id_: str, label: str, path: Path, form: Form, wanted: Sequence[str]
) -> Iterator[Block]:
    """Read a file whose labels lie in a second one, which tells rows by their id."""
    known: dict[str, str] = {}
    for block in read_file(labels, form, (id_, label)):
        if not {id_, label} <= set(block.columns):
            raise ConfigError(
                f"{labels} needs the columns of source.columns.id and source.columns.label to be "
                f"put beside {path.name}; it has {', '.join(block.columns)}"
            )
        pairs = zip(*(block.table[name].to_pylist() for name in (id_, label)), strict=True)
        known |= {row: said for row, said in pairs if said is not None}
    for block in read_file(path, form, wanted):
        ids = block.table[id_].to_pylist() if id_ in block.table.column_names else []
        values = pa.array(
            [known.get(each) for each in ids] or [None] * len(block.rows), pa.string()
        )
        plain = block.table
        if label in plain.column_names:
            plain = plain.drop_columns([label])
        columns = [*(name for name in block.columns if name != label), label]
        yield replace(block, table=plain.append_column(label, values), columns=columns)


def separator_of(path: Path) -> str:
    """Return what separates the columns of a file; see ``separator_in``."""
    usual = "\t" if kind_of(path.name) == ".tsv" else SEPARATORS[0]
    if kind_of(path.name) in (*PARQUET, *JSON_LINES):
        return usual
    try:
        size = path.stat().st_size
        with path.open("rb") as packed, unpacked(packed, path.name, size) as stream:
            sample = stream.read(SAMPLE_BYTES)
    except UNREADABLE_CONTENT:
        return usual
    return separator_in(sample.decode("utf-8-sig", "replace"), usual)


def read_table(
    path: Path, separator: str, encoding: str = "utf-8"
) -> tuple[pd.DataFrame, list[Unreadable]]:
    """Read a whole file with every value as a string, None where one is missing.

    Returns:
        The rows, and what cannot be one.

    Raises:
        SourceError: it, or each row of it, cannot be read.
    """
    form = Form(separator, encoding=encoding)
    frames: list[Any] = []
    unreadable: list[Unreadable] = []
    try:
        for block in read_file(path, form, ()):
            unreadable += block.unreadable
            frames.append(block.table.to_pandas())
        if unreadable and not sum(map(len, frames)):
            row, reason, _ = unreadable[0]
            raise ValueError(f"no row of it can be read; row {row} is {reason}")
    except UNREADABLE_CONTENT as error:
        likely = separator_of(path)
        hint = f"; is it separated by {likely!r}? See source.separator"
        raise SourceError(
            f"cannot read {path}: {error}{hint if likely not in (separator, SEPARATORS[0]) else ''}"
        ) from error
    if not frames:
        raise SourceError(f"{path} is empty")
    frame = pd.concat(frames, ignore_index=True).astype(object)
    return frame.where(frame.notna(), None), unreadable
