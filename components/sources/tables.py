"""Tables as streams: delimited text, JSON lines and Parquet, block by block, all strings.

No table is held in memory as a whole. A row that cannot be read is handed over with its
number and a reason code instead of a place in the table; what makes a whole file
unreadable, such as an end that is missing, is an error of the caller's to word.
"""

from __future__ import annotations

import base64
import codecs
import csv
import io
import json
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath
from types import NoneType
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

SEPARATORS = (",", ";", "\t", "|")
"""What separates the columns of a delimited file, the most usual first."""
SEPARATOR_ROWS = 200
"""Rows that ``separator_in`` looks at."""
PARQUET, JSON_LINES = (".parquet", ".pq"), (".jsonl", ".ndjson")
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst", ".zip")
BLOCK_BYTES = 8 << 20
"""Bytes that are parsed at once; a longer row is unreadable."""
AHEAD = 3
"""Blocks that are parsed while an earlier one is worked on."""
RAW_CHARACTERS = 2_000
"""Of an unreadable row, so many characters are kept for the one who mends it."""
_MAGIC = {
    ".gz": b"\x1f\x8b",
    ".bz2": b"BZh",
    ".xz": b"\xfd7zXZ",
    ".zst": b"\x28\xb5\x2f\xfd",
    ".zip": b"PK\x03\x04",
    ".parquet": b"PAR1",
}
"""With what files of other forms begin."""
_DECODER = json.JSONDecoder(parse_float=str, parse_int=str)
_TEXTS = {str, NoneType}
_PLAIN = {*_TEXTS, int, bool}
_MARK = "\ufdd0"
"""Stands for bytes that are no text; Unicode promises that it is never a character."""
_QUOTED = re.compile(rb'(?:(?<=[,;|\t\r\n])|\A)"(?:[^"]++|"")*+("?)')
_QUOTE, _NEWLINES = 34, (10, 13)
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


class Unreadable(NamedTuple):
    """A row that is no row of the table."""

    row: int
    """Its number among the rows of the file, from 1; a header is not counted."""
    reason: str
    raw: str
    """What is written there, as far as it can be shown."""


@dataclass
class Block:
    """Some consecutive rows of a table.

    Attributes:
        table: strings, nothing where a value is missing; the wanted columns that there are.
        rows: number of each row in its file, from 1.
        columns: all columns that the file is known to have so far.
        unreadable: what lies between these rows.
        images: whether the column of images holds base64 of them, and no paths.
        columns_are_known: whether later rows cannot have further columns.
    """

    table: Any
    rows: NDArray[np.int64]
    columns: list[str]
    unreadable: list[Unreadable] = field(default_factory=list)
    images: bool = False
    columns_are_known: bool = True


@dataclass(frozen=True)
class Form:
    """How tables are written."""

    separator: str = ","
    header: bool = True
    quoted: bool = True
    encoding: str = "utf-8"
    encoding_errors: Literal["strict", "replace"] = "strict"
    image: str = ""
    """The column whose values, where they are bytes, are images."""


def kind_of(name: str) -> str:
    """Return the suffix that says what a file holds, below any of a compression.

    >>> kind_of("a/b.jsonl.gz"), kind_of("b.CSV"), kind_of("dt=2026-01-05/part-0")
    ('.jsonl', '.csv', '')
    """
    suffixes = [each.lower() for each in PurePosixPath(name).suffixes]
    held = [each for each in suffixes if each not in COMPRESSIONS]
    return held[-1] if held else ""


def blocks(stream: BinaryIO, name: str, form: Form, wanted: Sequence[str]) -> Iterator[Block]:
    """Read a table.

    Args:
        stream: the content, already unpacked; Parquet needs one that can seek.
        name: of the file, whose suffix says what it holds.
        form: how it is written.
        wanted: columns to hand over; without any, all.

    Raises:
        ValueError, OSError: the content as a whole is not what the name says.
    """
    kind = kind_of(name)
    if kind in PARQUET:
        return _parquet(stream, form, wanted)
    text = _as_utf8(iter(lambda: stream.read(BLOCK_BYTES), b""), form.encoding)
    if kind in JSON_LINES:
        return _json_lines(text, form, wanted)
    return _delimited(text, form, wanted)


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


# --- text ---


def _mark(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return _MARK, error.end


codecs.register_error("tokiwa-mark", _mark)


def _as_utf8(chunks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    """Yield text in UTF-8 without a byte order mark, which says what it is written in."""
    start = b""
    while len(start) < 4 and (chunk := next(chunks, b"")):
        start += chunk
    if start.startswith(codecs.BOM_UTF8):
        start, encoding = start.removeprefix(codecs.BOM_UTF8), "utf-8"
    elif start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    if codecs.lookup(encoding).name == "utf-8":
        yield start
        yield from chunks
        return
    decoder = codecs.getincrementaldecoder(encoding)("tokiwa-mark")
    for chunk in (start, *chunks):
        yield decoder.decode(chunk).encode("utf-8", "surrogatepass")
    yield decoder.decode(b"", final=True).encode("utf-8", "surrogatepass")


def _records(
    chunks: Iterable[bytes], end_of: Callable[[bytes], int]
) -> Iterator[tuple[bytes, str]]:
    """Yield whole rows, a block at a time, and rows that are none with the reason.

    Args:
        chunks: the text.
        end_of: where the last whole row of a text ends; 0 if it holds none.
    """
    data, overlong = b"", b""
    for chunk in chunks:
        if overlong:
            _, newline, chunk = chunk.partition(b"\n")
            if not newline:
                continue
            yield overlong, "row-too-long"
            overlong = b""
        data += chunk
        if len(data) < BLOCK_BYTES:
            continue
        if end := end_of(data):
            yield data[:end], ""
            data = data[end:]
        while len(data) > BLOCK_BYTES and not end_of(data):
            line, newline, rest = data.partition(b"\n")
            if newline:
                yield line, "unclosed-quote" if len(line) < BLOCK_BYTES else "row-too-long"
                data = rest
            else:
                data, overlong = b"", data[:RAW_CHARACTERS]
    if overlong:
        yield overlong, "row-too-long"
    while data and not data.isspace():
        if end := end_of(data if data.endswith(b"\n") else data + b"\n"):
            yield data[:end], ""
            data = data[end:]
        else:
            line, _, data = data.partition(b"\n")
            yield line, "unclosed-quote"


def _shown(raw: bytes | str) -> str:
    if isinstance(raw, bytes):
        raw = raw[: 4 * RAW_CHARACTERS].decode("utf-8", "backslashreplace")
    return raw.strip("\r\n").replace(_MARK, "\ufffd")[:RAW_CHARACTERS]


def shown_row(table: Any, row: int) -> str:
    """Return what is in a row of a table, as JSON."""
    values = {
        name: column[row].as_py()
        for name, column in zip(table.column_names, table.columns, strict=True)
    }
    return _shown(json.dumps(values, ensure_ascii=False))


def _without_marks(values: Any, form: Form) -> tuple[Any, Any]:
    """Return strings without marks, and where a mark makes a row unreadable."""
    import pyarrow.compute as pc

    marked = pc.fill_null(pc.match_substring(values, _MARK), False)
    if form.encoding_errors == "replace":
        return pc.replace_substring(values, _MARK, "\ufffd"), pa.scalar(False)
    return values, marked


# --- delimited text ---


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


def _delimited(chunks: Iterator[bytes], form: Form, wanted: Sequence[str]) -> Iterator[Block]:
    separator = ord(form.separator)
    if form.quoted:
        records = _records(chunks, lambda data: _end_of_rows(data, separator))
    else:
        records = _records(chunks, lambda data: data.rfind(b"\n") + 1 or data.rfind(b"\r") + 1)
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
                pending.append(Unreadable(0, wrong, _shown(data)))
            elif columns:
                pending.append(pool.submit(_parsed, data, form, columns, wanted))
            yield from handed_over(AHEAD)
        yield from handed_over(0)


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
    if any(_MARK in name for name in names):
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
        marked = not whole or _MARK.encode() in data
        if not whole:
            data = data.decode("utf-8", "tokiwa-mark").encode()
    unreadable: list[Unreadable] = []

    def skip(row: Any) -> str:
        unreadable.append(Unreadable(row.number - 1, "wrong-column-count", _shown(row.text)))
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
    return _unmarked(block, form) if marked else block


def _is_utf8(data: bytes) -> bool:
    offsets = pa.array([0, len(data)], pa.int32()).buffers()[1]
    whole = pa.Array.from_buffers(pa.binary(), 1, [None, offsets, pa.py_buffer(data)])
    try:
        whole.cast(pa.string())
    except pa.ArrowInvalid:
        return False
    return True


def _unmarked(block: Block, form: Form) -> Block:
    bad = np.zeros(block.table.num_rows, bool)
    table = block.table
    for position, name in enumerate(table.column_names):
        values, marked = _without_marks(table.column(position), form)
        table = table.set_column(position, name, values)
        if form.encoding_errors == "strict":
            bad |= np.asarray(marked)
    for row in np.flatnonzero(bad):
        raw = shown_row(block.table, int(row))
        block.unreadable.append(Unreadable(int(block.rows[row]), "bad-encoding", raw))
    block.unreadable.sort()
    good = table.filter(pa.array(~bad))
    return Block(good, block.rows[~bad], block.columns, block.unreadable, block.images)


# --- JSON lines ---


def _json_lines(chunks: Iterator[bytes], form: Form, wanted: Sequence[str]) -> Iterator[Block]:
    """Read one JSON object a line, numbers as they are written, nothing for null and NaN."""
    seen: dict[str, None] = {}
    number = 0
    for data, wrong in _records(chunks, lambda data: data.rfind(b"\n") + 1):
        unreadable = list[Unreadable]()
        plain = None if wrong else _plain_json_rows(data)
        if plain is not None:
            records = plain
            rows = np.arange(number + 1, number + 1 + len(records), dtype=np.int64)
            number += len(records)
        else:
            records, numbers = [], list[int]()
            for line in [data] if wrong else data.split(b"\n"):
                if not line.strip():
                    continue
                number += 1
                try:
                    if wrong:
                        raise ValueError("row-too-long")
                    records.append(_json_row(line, form))
                    numbers.append(number)
                except ValueError as error:
                    unreadable.append(Unreadable(number, str(error), _shown(line)))
            rows = np.array(numbers, np.int64)
        for columns in dict.fromkeys(map(tuple, records)):
            seen.update(dict.fromkeys(columns))
        names = wanted or list(seen)
        values = pa.array(records, pa.struct([(name, pa.string()) for name in names]))
        table = pa.table(values.flatten(), names=names)
        yield Block(table, rows, list(seen), unreadable, False, False)


def _plain_json_rows(data: bytes) -> list[dict[str, str | None]] | None:
    """Return rows of strings and whole numbers; None if there are others, which take longer."""
    if _MARK.encode() in data:
        return None
    rows = []
    for line in data.split(b"\n"):
        if not line or line.isspace():
            continue
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError:
            return None
        if type(record) is not dict:
            return None
        kinds = set(map(type, record.values()))
        if not kinds <= _TEXTS:
            # Other numbers are shown as they are written, and so is -0.
            if not kinds <= _PLAIN or b"-0" in line:
                return None
            record = {name: _as_text(value) for name, value in record.items()}
        rows.append(record)
    return rows


def _json_row(line: bytes, form: Form) -> dict[str, str | None]:
    """Return an object's values as strings; a ``ValueError`` is the reason why there is none."""
    try:
        text = line.decode("utf-8", form.encoding_errors)
        if _MARK in text:
            text = text.replace(_MARK, "\ufffd")
            if form.encoding_errors == "strict":
                raise ValueError("bad-encoding")
    except UnicodeDecodeError as error:
        raise ValueError("bad-encoding") from error
    try:
        record = _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise ValueError("bad-json") from error
    if not isinstance(record, dict):
        raise ValueError("not-an-object")
    row = {name: _as_text(value) for name, value in record.items()}
    try:
        # A lone surrogate can be written in JSON, but no text may hold it.
        for name, value in row.items():
            name.encode()
            if value is not None and not value.isascii():
                row[name] = value.encode("utf-8", form.encoding_errors).decode()
    except UnicodeEncodeError as error:
        raise ValueError("bad-encoding") from error
    return row


def _as_text(value: Any) -> str | None:
    if value is None or value != value:
        return None
    return value if isinstance(value, str) else str(value)


# --- Parquet ---


def _parquet(stream: BinaryIO, form: Form, wanted: Sequence[str]) -> Iterator[Block]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(stream) as file:
        schema = file.schema_arrow
        columns = list(schema.names)
        taken = [name for name in wanted if name in columns] if wanted else columns
        images = form.image in columns and _holds_bytes(schema.field(form.image).type)
        first = 1
        for batch in file.iter_batches(batch_size=1 << 14, columns=taken):
            # Of two columns of one name the first; whoever wants it is told that there are two.
            values = {name: batch.column(batch.schema.names.index(name)) for name in taken}
            table = pa.table(
                {
                    name: _images(each) if images and name == form.image else _strings(each)
                    for name, each in values.items()
                }
            )
            rows = np.arange(first, first + batch.num_rows, dtype=np.int64)
            first += batch.num_rows
            block = Block(table, rows, columns, images=images)
            marked = any(_may_be_broken(each) for each in values.values())
            yield _unmarked(block, form) if marked else block
        if first == 1:
            none = {name: pa.array([], pa.string()) for name in taken}
            yield Block(pa.table(none), np.zeros(0, np.int64), columns)


def _holds_bytes(kind: Any) -> bool:
    """Tell whether a type is bytes, or a struct of them as Hugging Face writes images."""
    if pa.types.is_struct(kind):
        return bool(kind.get_field_index("bytes") >= 0)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _images(values: Any) -> Any:
    if pa.types.is_struct(values.type):
        values = values.field("bytes")
    encoded = [
        None if each is None else base64.b64encode(each).decode() for each in values.to_pylist()
    ]
    return pa.array(encoded, pa.string())


def _may_be_broken(values: Any) -> bool:
    """Tell whether a column may hold bytes that are no text."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        return _may_be_broken(values.dictionary)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _is_broken(values)
    return _holds_bytes(kind) and not pa.types.is_struct(kind)


def _is_broken(values: Any) -> bool:
    """Tell whether strings, whose writer promised that they are text, are not."""
    try:
        # Only a cast from bytes looks at them.
        values.cast(pa.large_binary()).cast(pa.large_string())
    except pa.ArrowInvalid:
        return True
    return False


def _strings(values: Any) -> Any:
    """Return a column as strings, as Python shows its values."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        return _strings(values.dictionary_decode())
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return (
            _strings(values.cast(pa.large_binary()))
            if _is_broken(values)
            else values.cast(pa.string())
        )
    if pa.types.is_integer(kind):
        return values.cast(pa.string())
    if _holds_bytes(kind) and not pa.types.is_struct(kind):
        texts = [
            None if each is None else each.decode("utf-8", "tokiwa-mark")
            for each in values.to_pylist()
        ]
        return pa.array(texts, pa.string())
    if pa.types.is_timestamp(kind):
        return pa.array(_moments(values), pa.string())
    try:
        found = [_as_text(value) for value in values.to_pylist()]
    except (OverflowError, ValueError):  # some day or length of time is beyond Python's
        found = [_as_text(_python_value(value)) for value in values]
    return pa.array(found, pa.string())


def _python_value(scalar: Any) -> Any:
    """Return what Python makes of a value; of one beyond its own, words for what it is."""
    try:
        return scalar.as_py()
    except (OverflowError, ValueError):
        # Nothing that could be read as a day or a number.
        return f"{getattr(scalar, 'value', '?')} as {scalar.type}"


def _moments(values: Any) -> list[str | None]:
    """Return timestamps in ISO 8601, cut to whole microseconds."""
    unit, zone = values.type.unit, values.type.tz
    try:
        # Unsafe is to cut nanoseconds, as wanted, and to let longer units overflow.
        whole = values.cast(pa.timestamp("us", zone), safe=unit != "ns").to_pylist()
        return [None if each is None else each.isoformat() for each in whole]
    except (OverflowError, ValueError, LookupError):
        # A zone that nobody knows, and instants beyond the year 9999: one by one, as UTC.
        begin = datetime(1970, 1, 1, tzinfo=UTC if zone else None)
        return [
            None if each is None else _instant(begin, each, unit)
            for each in values.cast(pa.int64()).to_pylist()
        ]


def _instant(begin: datetime, number: int, unit: str) -> str:
    """Return an instant in ISO 8601; of one that Python does not know, the number."""
    try:
        return (begin + timedelta(microseconds=number * 10**6 // _PER_SECOND[unit])).isoformat()
    except OverflowError:
        return f"{number} {unit} after 1970"
