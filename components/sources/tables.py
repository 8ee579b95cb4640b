"""Tables as streams: delimited text, JSON lines and Parquet, block by block, all strings.

No table is held in memory as a whole. A row that cannot be read is handed over with its
number and a reason code instead of a place in the table; what makes a whole file
unreadable, such as an end that is missing, is an error of the caller's to word.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import BinaryIO

from components.sources.block import Block, Form
from components.sources.delimited import delimited
from components.sources.json_lines import json_lines
from components.sources.lines import as_utf8
from components.sources.parquet import parquet

PARQUET, JSON_LINES = (".parquet", ".pq"), (".jsonl", ".ndjson")
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst", ".zip")


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
        return parquet(stream, form, wanted)
    text = as_utf8(stream, form.encoding)
    if kind in JSON_LINES:
        return json_lines(text, form, wanted)
    return delimited(text, form, wanted)
