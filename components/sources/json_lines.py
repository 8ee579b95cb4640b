"""JSON lines: an object a row."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from types import NoneType

import numpy as np
import orjson
import pyarrow as pa

from components.sources.block import MARK, Block, Form, Unreadable, as_text, shown
from components.sources.lines import whole_rows

_DECODER = json.JSONDecoder(parse_float=str, parse_int=str)
_TEXTS = {str, NoneType}
_PLAIN = {*_TEXTS, int, bool}


def json_lines(chunks: Iterator[bytes], form: Form, wanted: Sequence[str]) -> Iterator[Block]:
    """Read one JSON object a line, numbers as they are written, nothing for null and NaN."""
    seen: dict[str, None] = {}
    number = 0
    for data, wrong in whole_rows(chunks, lambda data: data.rfind(b"\n") + 1):
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
                    unreadable.append(Unreadable(number, str(error), shown(line)))
            rows = np.array(numbers, np.int64)
        for columns in dict.fromkeys(map(tuple, records)):
            seen.update(dict.fromkeys(columns))
        names = wanted or list(seen)
        values = pa.array(records, pa.struct([(name, pa.string()) for name in names]))
        table = pa.table(values.flatten(), names=names)
        yield Block(table, rows, list(seen), unreadable, False, False)


def _plain_json_rows(data: bytes) -> list[dict[str, str | None]] | None:
    """Return rows of strings and whole numbers; None if there are others, which take longer."""
    if MARK.encode() in data:
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
            record = {name: as_text(value) for name, value in record.items()}
        rows.append(record)
    return rows


def _json_row(line: bytes, form: Form) -> dict[str, str | None]:
    """Return an object's values as strings; a ``ValueError`` is the reason why there is none."""
    try:
        text = line.decode("utf-8", form.encoding_errors)
        if MARK in text:
            text = text.replace(MARK, "\ufffd")
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
    row = {name: as_text(value) for name, value in record.items()}
    try:
        # A lone surrogate can be written in JSON, but no text may hold it.
        for name, value in row.items():
            name.encode()
            if value is not None and not value.isascii():
                row[name] = value.encode("utf-8", form.encoding_errors).decode()
    except UnicodeEncodeError as error:
        raise ValueError("bad-encoding") from error
    return row
