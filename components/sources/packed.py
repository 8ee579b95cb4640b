"""Compressed files as streams of what is in them, which refuse what unpacks without end."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
from pathlib import PurePosixPath
from typing import Any, BinaryIO

import pyarrow as pa

from components.sources.tables import COMPRESSIONS

MAX_RATIO = 200
"""Bytes that one packed byte may unpack to; text packs to a tenth, rarely to a fiftieth."""
FREE_BYTES = 64 << 20
"""So much may always be unpacked, for a short file of one repeated word is no attack."""
_OPENERS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


class Unpacked(io.RawIOBase):
    """What is in a packed stream; ``ValueError`` where it unpacks to far too much."""

    def __init__(self, stream: Any, packed_bytes: int) -> None:
        """Take the unpacking stream, and how many bytes were packed."""
        self._stream = stream
        self._left = max(FREE_BYTES, MAX_RATIO * packed_bytes)

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer; 0 at the end."""
        data: bytes = self._stream.read(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise ValueError(
                f"it unpacks to more than {MAX_RATIO} times its size, which no table does; "
                "unpack it yourself if it is meant to"
            )
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close what is underneath."""
        self._stream.close()
        super().close()


def is_packed(name: str) -> bool:
    """Tell whether a file's suffix names a compression."""
    return PurePosixPath(name).suffix.lower() in COMPRESSIONS


def unpacked(stream: BinaryIO, name: str, packed_bytes: int) -> BinaryIO:
    """Return a stream of what is in a file; the file's own if it is not compressed.

    Args:
        stream: of the file; a zip needs one that can seek.
        name: whose suffix says how it is compressed.
        packed_bytes: the file's size.

    Raises:
        ValueError: a zip does not hold exactly one file.
    """
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in _OPENERS:
        inner: Any = _OPENERS[suffix](stream, "rb")
    elif suffix == ".zst":
        inner = pa.CompressedInputStream(pa.PythonFile(stream, "r"), "zstd")
    elif suffix == ".zip":
        archive = zipfile.ZipFile(stream)
        members = [each for each in archive.infolist() if not each.is_dir()]
        if len(members) != 1:
            raise ValueError(f"the zip holds {len(members)} files, and should hold one")
        inner = archive.open(members[0])
    else:
        return stream
    return io.BufferedReader(Unpacked(inner, packed_bytes), 1 << 20)
