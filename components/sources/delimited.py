"""Delimited text, such as CSV: RFC 4180 and what people make of it."""

from __future__ import annotations

import csv
import io
import os
import re
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from components.sources.block import MARK, Block, Form, Unreadable, shown, unmarked
from components.sources.lines import BLOCK_BYTES, whole_rows

SEPARATORS = (",", ";", "\t", "|")
"""What separates the columns of a delimited file, the most usual first."""
SEPARATOR_ROWS = 200
"""Rows that ``separator_in`` looks at."""
AHEAD = 3
"""Blocks that are parsed while an earlier one is worked on."""
_MAGIC = {
    ".gz": b"\x1f\x8b",
    ".bz2": b"BZh",
    ".xz": b"\xfd7zXZ",
    ".zst": b"\x28\xb5\x2f\xfd",
    ".zip": b"PK\x03\x04",
    ".parquet": b"PAR1",
}
"""With what files of other forms begin."""
_QUOTED = re.compile(rb'(?:(?<=[,;|\t\r\n])|\A)"(?:[^"]++|"")*+("?)')
_QUOTE, _NEWLINES = 34, (10, 13)


def separator_in(sample: str, usual: str = SEPARATORS[0]) -> str:
    r"""Return what separates the columns of delimited text, told from its first rows.

    It is what cuts most of them into as many fields as the first one, of which there are
    at least two; where nothing does, what is usual.

    >>> separator_in("subject, or less;body\na;b\nc;d\n")
    ';'
    """
    share: dict[str, tuple[float, int]] = {}
    for separator in SEPARATORS:
        try:
            rows = csv.reader(io.StringIO(sample, newline=""), delimiter=separator)
            fields = [len(row) for _, row in zip(range(SEPARATOR_ROWS), rows, strict=False) if row]
        except csv.Error:
            continue
        if fields and fields[0] > 1:
            share[separator] = (fields.count(fields[0]) / len(fields), fields[0])
    return max(share, key=lambda separator: share[separator], default=usual)


def delimited(chunks: Iterator[bytes], form: Form, wanted: Sequence[str]) -> Iterator[Block]:
    """Read rows of fields, blocks parsed side by side, empty fields as nothing."""
    separator = ord(form.separator)
    if form.quoted:
        records = whole_rows(chunks, lambda data: _end_of_rows(data, separator))
    else:
        records = whole_rows(chunks, lambda data: data.rfind(b"\n") + 1 or data.rfind(b"\r") + 1)
    columns: list[str] = []
    number = 1
    pending: deque[Future[Block] | Unreadable] = deque()

    def handed_over(least: int) -> Iterator[Block]:
        nonlocal number
        while len(pending) > least:
            first = pending.popleft()
            if isinstance(first, Unreadable):
                none = pa.table({name: pa.array([], pa.string()) for name in columns})
                block = Block(none, np.zeros(0, np.int64), columns, [first])
                block.unreadable, count = [first._replace(row=number)], 1
            else:
                block = first.result()
                count = len(block.rows) + len(block.unreadable)
                block.rows += number
                block.unreadable = [
                    each._replace(row=each.row + number) for each in block.unreadable
                ]
            number += count
            yield block

    with ThreadPoolExecutor(min(AHEAD, os.cpu_count() or 1)) as pool:
        for data, wrong in records:
            if not wrong and not columns:
                columns, data = _header(data, form)
                if columns and data.isspace():
                    data = b""
            if wrong:
                pending.append(Unreadable(0, wrong, shown(data)))
            elif columns:
                pending.append(pool.submit(_parsed, data, form, columns, wanted))
            yield from handed_over(AHEAD)
        yield from handed_over(0)


def _end_of_rows(data: bytes, separator: int) -> int:
    """Return where the last whole row of quoted delimited text ends; 0 if there is none.

    A quote opens a field only where one begins. In a text that is written as RFC 4180 says,
    a newline ends a row if the quotes before it are even in number; in any other, the
    quoted fields are looked for one by one.
    """
    newline = data.rfind(b"\n")
    if newline < 0:
        newline = data.rfind(b"\r", 0, -1)
    if b'"' not in data:
        return newline + 1
    text = np.frombuffer(data, np.uint8)
    quotes = np.flatnonzero(text == _QUOTE)
    may_precede = np.zeros(256, bool)
    may_precede[[separator, *_NEWLINES, _QUOTE]] = True
    first = int(quotes[0] == 0)  # nothing is before it
    if not may_precede[text[quotes[::2][first:] - 1]].all():
        fields = list(_QUOTED.finditer(data))
        edges = [edge for each in fields for edge in (each.start(), each.end() - 1)]
        if fields and not fields[-1][1]:
            edges.pop()  # it is not closed
        quotes = np.array(edges, np.int64)
    while newline >= 0:
        count = int(np.searchsorted(quotes, newline))
        if count % 2 == 0:
            return newline + 1
        newline = data.rfind(b"\n", 0, int(quotes[count - 1]))
    return 0


def _header(data: bytes, form: Form) -> tuple[list[str], bytes]:
    """Return the names of the columns, none if there is no row, and what comes after them."""
    lines = data.splitlines(keepends=True) if len(data) < BLOCK_BYTES else data.split(b"\n", 1000)
    text = b"\n".join(line.rstrip(b"\r\n") for line in lines[:1000])
    decoded = text.decode("utf-8", "tokiwa-mark")
    quoting: Literal[0, 3] = 0 if form.quoted else 3  # csv.QUOTE_MINIMAL, csv.QUOTE_NONE
    reader = csv.reader(io.StringIO(decoded, newline=""), delimiter=form.separator, quoting=quoting)
    try:
        names = next((row for row in reader if row), [])
    except csv.Error as error:
        raise ValueError(f"its first line cannot be read: {error}") from error
    if not form.header:
        return [str(number) for number in range(len(names))], data
    if any(MARK in name for name in names):
        packed = next((each for each, magic in _MAGIC.items() if data.startswith(magic)), "")
        if packed:
            raise ValueError(f"it is packed, or of another form: its name should end in {packed}")
        raise ValueError(
            f"the names of its columns are not written in {form.encoding.upper()}; "
            "see source.encoding, such as cp1252 or cp932"
        )
    start = 0
    for _ in range(reader.line_num):
        ends = [end for end in (data.find(b"\n", start), data.find(b"\r", start)) if end >= 0]
        if not ends:
            return names, b""
        end = min(ends)
        start = end + (2 if data[end : end + 2] == b"\r\n" else 1)
    return names, data[start:]


def _parsed(data: bytes, form: Form, columns: Sequence[str], wanted: Sequence[str]) -> Block:
    """Parse whole rows; numbers count from 0."""
    import pyarrow.csv as pv

    if not data or data.isspace():
        empty = {name: pa.array([], pa.string()) for name in wanted or columns if name in columns}
        return Block(pa.table(empty), np.zeros(0, np.int64), list(columns))
    marked = False
    if not data.isascii():
        whole = _is_utf8(data)
        marked = not whole or MARK.encode() in data
        if not whole:
            data = data.decode("utf-8", "tokiwa-mark").encode()
    unreadable: list[Unreadable] = []

    def skip(row: Any) -> str:
        unreadable.append(Unreadable(row.number - 1, "wrong-column-count", shown(row.text)))
        return "skip"

    taken = [name for name in wanted if name in columns] if wanted else list(columns)
    table = pv.read_csv(
        pa.BufferReader(data),
        pv.ReadOptions(use_threads=False, column_names=columns, block_size=len(data) + 1),
        pv.ParseOptions(
            delimiter=form.separator,
            quote_char='"' if form.quoted else False,
            newlines_in_values=form.quoted,
            invalid_row_handler=skip,
        ),
        pv.ConvertOptions(
            check_utf8=False,
            column_types=dict.fromkeys(columns, pa.string()),
            null_values=[""],
            strings_can_be_null=True,
            include_columns=taken,
        ),
    )
    rows = np.arange(table.num_rows + len(unreadable), dtype=np.int64)
    if unreadable:
        rows = np.delete(rows, [each.row for each in unreadable])
    block = Block(table, rows, list(columns), unreadable)
    return unmarked(block, form) if marked else block


def _is_utf8(data: bytes) -> bool:
    offsets = pa.array([0, len(data)], pa.int32()).buffers()[1]
    whole = pa.Array.from_buffers(pa.binary(), 1, [None, offsets, pa.py_buffer(data)])
    try:
        whole.cast(pa.string())
    except pa.ArrowInvalid:
        return False
    return True
