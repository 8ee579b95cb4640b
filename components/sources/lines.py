"""Text as whole rows, whatever it is written in, a bounded part of it in memory."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

from components.sources.block import RAW_CHARACTERS

BLOCK_BYTES = 8 << 20
"""Bytes that are parsed at once; a longer row is unreadable."""


def as_utf8(stream: BinaryIO, encoding: str) -> Iterator[bytes]:
    """Yield text in UTF-8 without a byte order mark, which says what it is written in."""
    chunks = iter(lambda: stream.read(BLOCK_BYTES), b"")
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


def whole_rows(
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
