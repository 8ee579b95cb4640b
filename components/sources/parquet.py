"""Parquet: columns of any type, as strings."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from components.sources.block import Block, Form, as_text, unmarked

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def parquet(stream: BinaryIO, form: Form, wanted: Sequence[str]) -> Iterator[Block]:
    """Read batches of rows, images as base64 where a column holds their bytes."""
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
            yield unmarked(block, form) if marked else block
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
        found = [as_text(value) for value in values.to_pylist()]
    except (OverflowError, ValueError):  # some day or length of time is beyond Python's
        found = [as_text(_python_value(value)) for value in values]
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
