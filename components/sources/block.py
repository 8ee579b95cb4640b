"""Rows of a table as they are handed over, some at a time, and what could not be one."""

from __future__ import annotations

import codecs
import json
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

RAW_CHARACTERS = 2_000
"""Of an unreadable row, so many characters are kept for the one who mends it."""
MARK = "\ufdd0"
"""Stands for bytes that are no text; Unicode promises that it is never a character."""


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


def shown_row(table: Any, row: int) -> str:
    """Return what is in a row of a table, as JSON."""
    values = {
        name: column[row].as_py()
        for name, column in zip(table.column_names, table.columns, strict=True)
    }
    return shown(json.dumps(values, ensure_ascii=False))


def shown(raw: bytes | str) -> str:
    """Return what is written in a row that is none, as far as it can be shown."""
    if isinstance(raw, bytes):
        raw = raw[: 4 * RAW_CHARACTERS].decode("utf-8", "backslashreplace")
    return raw.strip("\r\n").replace(MARK, "\ufffd")[:RAW_CHARACTERS]


def as_text(value: Any) -> str | None:
    """Return a value as a string, nothing for what is missing or NaN."""
    if value is None or value != value:
        return None
    return value if isinstance(value, str) else str(value)


def unmarked(block: Block, form: Form) -> Block:
    """Return a block whose rows with marks are unreadable, or replaced as the form asks."""
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


def _without_marks(values: Any, form: Form) -> tuple[Any, Any]:
    """Return strings without marks, and where a mark makes a row unreadable."""
    import pyarrow.compute as pc

    marked = pc.fill_null(pc.match_substring(values, MARK), False)
    if form.encoding_errors == "replace":
        return pc.replace_substring(values, MARK, "\ufffd"), pa.scalar(False)
    return values, marked


def _mark(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return MARK, error.end


codecs.register_error("tokiwa-mark", _mark)
