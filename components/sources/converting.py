"""From tables to rows, in order: large ones block by block, small ones side by side.

Most of what a small table costs is not its rows. So small tables are read by several threads,
and those that are alike are mapped as if they were one; where that might not give what each of
them gives by itself, they are mapped one by one.
"""

from __future__ import annotations

import lzma
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa

from components.errors import ConfigError, SourceError
from components.sources.block import Block, Form, Unreadable
from components.sources.columns import Part, TableConfig
from components.sources.kept import PartWriter
from components.sources.mapping import TABLE, Mapper, wanted_columns
from components.sources.packed import is_packed

READERS = 16
"""Small tables that are read at the same time."""
SMALL_BYTES = 4 << 20
TOGETHER_ROWS = 1 << 14
"""Small tables are mapped together until they have so many rows."""
UNREADABLE_CONTENT = (
    OSError,
    ValueError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    NotImplementedError,
    pa.ArrowException,
)
"""What libraries raise when a content is not what it should be."""
Converted = Iterator[tuple[Any, list[tuple[Unreadable, Any]]]]
"""Rows of a table, some at a time, and what is unreadable with the moment to file it under."""


class Changed(Exception):
    """A table changed while it was read."""


@dataclass(frozen=True)
class Table:
    """One table of a source.

    Attributes:
        name: tells it from all others, and where it lies.
        version: another one if its content may be another.
        part: of the source, that it belongs to.
        blocks: reads it, given how it is written and the wanted columns.
        is_current: whether it still is of this version.
        day: of all its rows, YYYY-MM-DD; empty if they carry times, or none.
        size: about how many bytes it has.
        optional: whether it may be empty.
        picture: finds the images that it names.
    """

    name: str
    version: str
    part: Part
    blocks: Callable[[Form, Sequence[str]], Iterator[Block]]
    is_current: Callable[[], bool]
    day: str = ""
    size: int = 0
    optional: bool = False
    picture: Callable[[str], bytes | None] = lambda path: None


class Converter:
    """Makes rows of tables."""

    def __init__(
        self,
        config: TableConfig,
        remembered: Callable[[Any], Any],
        is_forgotten: Callable[[str], bool],
    ) -> None:
        """Take the source's section, and what leaves out what is to be forgotten.

        Args:
            config: the section.
            remembered: takes rows out of an Arrow table.
            is_forgotten: tells of a line that is no row.
        """
        self._config, self._remembered = config, remembered
        self._is_forgotten = is_forgotten

    def write(self, tables: Sequence[Table], writer: PartWriter) -> None:
        """Write the rows of tables, in order.

        Raises:
            ConfigError: a table lacks a column.
            SourceError: a table cannot be read.
            Changed: a table changed while it was read.
        """
        held: list[tuple[Table, Block]] = []
        held_rows = 0
        for table, found in self._read_ahead(tables):
            lone = isinstance(found, Block)
            if held and not (lone and held_rows < TOGETHER_ROWS and _are_alike(held[0][0], table)):
                self._write_together(held, writer)
                held, held_rows = [], 0
            if isinstance(found, Block):
                held.append((table, found))
                held_rows += len(found.rows)
            else:
                writer.add(table.name, table.version, found)
        if held:
            self._write_together(held, writer)

    def _read_ahead(self, tables: Sequence[Table]) -> Iterator[tuple[Table, Block | Converted]]:
        """Yield tables with their rows, small ones read ahead and side by side."""
        with ThreadPoolExecutor(READERS) as pool:
            ahead: deque[tuple[Table, Future[Block | Converted] | None]] = deque()

            def next_one() -> tuple[Table, Block | Converted]:
                table, future = ahead.popleft()
                return table, future.result() if future else self._convert(table)

            try:
                for table in tables:
                    small = table.size <= SMALL_BYTES and len(tables) > 1
                    ahead.append((table, pool.submit(self._small, table) if small else None))
                    if len(ahead) > 4 * READERS:
                        yield next_one()
                while ahead:
                    yield next_one()
            finally:
                pool.shutdown(cancel_futures=True)

    def _small(self, table: Table) -> Block | Converted:
        """Return the only block of a table if it may be mapped with others, else the rows."""
        blocks = list(self._blocks(table))
        columns = table.part.columns or self._config.columns
        plain = columns.content == "text" and columns.id and table.part.share == (0, 1)
        if plain and self._config.label_bins is None and len(blocks) == 1:
            [block] = blocks
            if len(block.rows) and not block.unreadable:
                return block
        return iter(list(self._convert(table, blocks)))

    def _blocks(self, table: Table) -> Iterator[Block]:
        """Read a table to its end, at which it must be what it was."""
        columns = table.part.columns or self._config.columns
        form = self._config.form
        if columns.image:
            form = replace(form, image=columns.image)
        with _explained(table):
            yield from table.blocks(form, wanted_columns(columns))
        if not table.is_current():
            raise Changed(table.name)

    def _mapper(self, table: Table) -> Mapper:
        return Mapper(self._config, table.part, table.name, table.day, table.picture)

    def _convert(self, table: Table, blocks: Iterable[Block] | None = None) -> Converted:
        """Yield the rows of a table, and what is unreadable in it."""
        mapper = self._mapper(table)
        first: Unreadable | None = None
        for block in self._blocks(table) if blocks is None else blocks:
            with _explained(table):
                rows, unreadable = mapper.rows(block)
            if unreadable and first is None:
                first = unreadable[0][0]
            left = [each for each in unreadable if not self._is_forgotten(each[0].raw)]
            yield self._remembered(rows), left
        if first is not None and not mapper.readable and not table.optional:
            hint = "; see source.encoding" if first.reason == "bad-encoding" else ""
            raise SourceError(
                f"cannot read {table.name}: no row of it can be read; row {first.row} is "
                f"{first.reason}: {first.raw[:80]!r}{hint}"
            )
        mapper.check(empty_is_wrong=not table.optional)

    def _write_together(self, held: Sequence[tuple[Table, Block]], writer: PartWriter) -> None:
        rows = self._together(held) if len(held) > 1 else None
        if rows is None:
            for table, block in held:
                writer.add(table.name, table.version, self._convert(table, [block]))
        else:
            tables = [(table.name, table.version, len(block.rows)) for table, block in held]
            writer.add_together(tables, rows)

    def _together(self, held: Sequence[tuple[Table, Block]]) -> Any:
        """Return the rows of alike tables; None where each has to be looked at by itself."""
        tables, blocks = zip(*held, strict=True)
        mapper = self._mapper(tables[0])
        try:
            for columns in {tuple(block.columns) for block in blocks}:
                mapper.columns = list(columns)
                mapper.check(empty_is_wrong=False)
            numbers = np.concatenate([block.rows for block in blocks])
            whole = pa.concat_tables([block.table for block in blocks])
            rows, unreadable = mapper.rows(Block(whole, numbers, blocks[0].columns))
        except (ConfigError, SourceError, *UNREADABLE_CONTENT):
            return None
        rows = self._remembered(rows)
        if unreadable or rows.num_rows < len(numbers):
            return None
        of_each = np.repeat(np.arange(len(tables)), [len(block.rows) for block in blocks])
        names = pa.array([table.name for table in tables], pa.string()).take(pa.array(of_each))
        return rows.set_column(rows.column_names.index(TABLE), TABLE, names)


def _are_alike(one: Table, other: Table) -> bool:
    return one.part is other.part and one.day == other.day


@contextmanager
def _explained(table: Table) -> Iterator[None]:
    """Turn what libraries raise into one clear line."""
    try:
        yield
    except UNREADABLE_CONTENT as error:
        if not table.is_current():
            raise Changed(table.name) from error
        raise SourceError(f"cannot read {table.name}: {error}{_hint(table.name)}") from error


def _hint(name: str) -> str:
    """Say what to look at where the content of a packed file cannot be read."""
    if not is_packed(name):
        return ""
    suffix = PurePosixPath(name).suffix
    return f". Is it whole, and packed as {suffix} says? If it is not packed, rename it"
